"""This host's place in the cluster: its row, renewed in time, and until when this process may trust that it holds it.

A new `host_id` a process start. Expiry is judged by the database's clock alone; this process judges its own trust by
its monotonic clock: `renewal sent + TTL - margin` (as river's elector does), always before anybody may take over.
"""

from __future__ import annotations

import socket
from pathlib import Path

import structlog
import trio

from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore

log = structlog.get_logger(__name__)

RENEW_TIMEOUT_SECONDS = 3.0
VERSION = "0.1.0"


class HostDeclaredDead(Exception):
    """Another host took over: nothing may be written under this host id any more. Start again as a new host."""


class Membership:
    """A supervised child: registers at start, renews, and says goodbye at the end."""

    def __init__(
        self, store: HostStore, state_dir: Path, *, ttl_seconds: float, renew_seconds: float, margin_seconds: float
    ) -> None:
        self.host_id = ""
        self._store = store
        self._record = state_dir / "host_id"
        self._ttl_seconds = ttl_seconds
        self._renew_seconds = renew_seconds
        self._margin_seconds = margin_seconds
        self._name = socket.gethostname()
        self.state = HostState.ACTIVE
        self.trusted_until = 0.0  # trio clock
        self._renewed = trio.Event()

    async def renewed(self) -> None:
        """Until the lease was renewed once more; callers bound the wait."""
        await self._renewed.wait()

    async def trusted_again(self) -> None:
        """Until this process trusts that it holds its lease."""
        while self.trusted_until <= trio.current_time():
            await self._renewed.wait()

    async def run(self, context: ChildContext) -> None:
        self.host_id = new_id()
        await self._take_over_predecessor()
        sent = trio.current_time()
        await self._store.register_host(
            self.host_id, name=self._name, link_url=None, version=VERSION, ttl_seconds=self._ttl_seconds
        )
        self._trust(sent)
        self._record.write_text(self.host_id)
        context.started(self.host_id)
        while not context.stopping.is_set():
            with trio.move_on_after(self._renew_seconds):
                await context.stopping.wait()
            if not context.stopping.is_set():
                await self._renew()
        await self._leave()

    async def _take_over_predecessor(self) -> None:
        """The lock on the state directory proves that whoever wrote this file is gone."""
        try:
            predecessor = self._record.read_text().strip()
        except FileNotFoundError:
            return
        if predecessor:
            await self._store.declare_host_dead(predecessor)

    async def _renew(self) -> None:
        sent = trio.current_time()
        try:
            with trio.fail_after(RENEW_TIMEOUT_SECONDS):
                alive = await self._store.renew_host(self.host_id, ttl_seconds=self._ttl_seconds, state=self.state)
        except (StoreUnavailable, trio.TooSlowError) as error:
            log.warning("host lease not renewed", trusted_for=round(self.trusted_until - sent, 1), error=str(error))
            return
        if not alive:
            raise HostDeclaredDead(f"host {self.host_id} was declared dead by another host")
        self._trust(sent)

    async def _leave(self) -> None:
        with trio.move_on_after(RENEW_TIMEOUT_SECONDS):
            try:
                await self._store.declare_host_dead(self.host_id)
            except StoreUnavailable as error:
                log.warning("could not say goodbye; the lease runs out by itself", error=str(error))

    def _trust(self, sent: float) -> None:
        self.trusted_until = sent + self._ttl_seconds - self._margin_seconds
        self._renewed.set()
        self._renewed = trio.Event()

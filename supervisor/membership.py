"""This host's place in the cluster: its row, renewed in time, and until when this process may trust that it holds it.

Two hosts of which one tolerates no other never live together: each looks for rivals once its own row is committed, and
who sees one leaves again. (Of two that start at the same instant both may leave; that both stay cannot be.)

A new `host_id` a process start. Expiry is judged by the database's clock alone; this process judges its own trust by
its monotonic clock: `renewal sent + TTL - margin` (as river's elector does), always before anybody may take over.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog
import trio

from lobu_actors.contract.ids import is_id, new_id
from lobu_actors.contract.states import Alone, HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_records import Links
from lobu_actors.store.protocol import HostStore
from supervisor.config.errors import ConfigError
from supervisor.config.keys import read_small_file
from supervisor.rollout import refusal

log = structlog.get_logger(__name__)

HOST_ID_FILE = "host_id"  # in the state directory: the id of the host that runs there, or did
RENEW_TIMEOUT_SECONDS = 3.0
VERSION = "0.1.0"


class HostDeclaredDead(Exception):
    """Another host took over: nothing may be written under this host id any more. Start again as a new host."""


class Membership:
    """A supervised child: registers at start, renews, and says goodbye at the end."""

    def __init__(
        self,
        store: HostStore,
        state_dir: Path,
        *,
        ttl_seconds: float,
        renew_seconds: float,
        margin_seconds: float,
        alone: Alone | None = None,
    ) -> None:
        """`alone`: why this host tolerates no other."""
        self.host_id = ""
        self.refused: ConfigError | None = None  # why there is no place for it in the cluster
        self.must_drain = trio.Event()  # somebody asked for it through the database, or there is no place
        self._store = store
        self._record = state_dir / HOST_ID_FILE
        self._ttl_seconds = ttl_seconds
        self._renew_seconds = renew_seconds
        self._margin_seconds = margin_seconds
        self._alone = alone
        self._name = socket.gethostname()
        self.state = HostState.ACTIVE
        self.trusted_until = 0.0  # trio clock
        self.runs: Callable[[], int] = lambda: 0  # under way; others want to know it
        self.room: Callable[[], int | None] = lambda: None  # for further workers; so do they
        self.link_url: Callable[[], str | None] = lambda: None  # where other hosts link to this one
        self.links: Callable[[], Links] = Links  # to the other hosts, for who looks
        self._renewed = trio.Event()
        self._renew_now = trio.Event()

    def begin_drain(self) -> None:
        """From now on this host is draining, and says so to all others at once."""
        self.state = HostState.DRAINING
        self._renew_now.set()

    async def renewed(self) -> None:
        """Until the lease was renewed once more; callers bound the wait."""
        await self._renewed.wait()

    async def trusted_again(self) -> None:
        """Until this process trusts that it holds its lease."""
        while self.trusted_until <= trio.current_time():
            await self._renewed.wait()

    async def run(self, context: ChildContext) -> None:
        self.host_id = new_id()
        predecessor = await self._take_over_predecessor()
        sent = trio.current_time()
        await self._store.register_host(
            self.host_id,
            name=self._name,
            link_url=self.link_url(),
            version=VERSION,
            ttl_seconds=self._ttl_seconds,
            renew_seconds=self._renew_seconds,
            alone=self._alone,
        )
        await self._refuse_beside_a_rival()
        if predecessor:
            await self._store.follow_rollout(predecessor, self.host_id)
        self._trust(sent)
        self._record.write_text(self.host_id)
        context.started(self.host_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_renewing)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()
        await self._leave()

    async def _keep_renewing(self) -> None:
        sent = trio.current_time()
        while True:
            with trio.move_on_at(sent + self._renew_seconds):  # not from the answer on, for which it may have to wait
                await self._renew_now.wait()
            self._renew_now = trio.Event()
            sent = trio.current_time()
            await self._renew(sent)

    async def _refuse_beside_a_rival(self) -> None:
        rivals = await self._store.find_rivals(self.host_id)
        if rivals:
            await self._store.declare_host_dead(self.host_id)
            self.refused = ConfigError(refusal(self._alone, rivals[0], datetime.now(UTC)))
            self.must_drain.set()  # also when it had a place before: then it must not be tried again and again
            raise self.refused

    async def _take_over_predecessor(self) -> str:
        """The lock on the state directory proves that whoever wrote this file is gone. Gives its id, or nothing."""
        predecessor = read_small_file(self._record) or ""
        if not is_id(predecessor):  # as after a power failure: the others see that its row is not renewed
            return ""
        await self._store.declare_host_dead(predecessor)
        return predecessor

    async def _renew(self, sent: float) -> None:
        try:
            with trio.fail_after(RENEW_TIMEOUT_SECONDS):
                state = await self._store.renew_host(
                    self.host_id,
                    ttl_seconds=self._ttl_seconds,
                    renew_seconds=self._renew_seconds,
                    state=self.state,
                    runs=self.runs(),
                    room=self.room(),
                    links=self.links(),
                )
        except (StoreUnavailable, trio.TooSlowError) as error:
            reason = str(error) or f"no answer within {RENEW_TIMEOUT_SECONDS:g} s"
            log.warning("host lease not renewed", trusted_for=round(self.trusted_until - sent, 1), error=reason)
            return
        if state is None:
            raise HostDeclaredDead(f"host {self.host_id} was declared dead by another host")
        if state is HostState.DRAINING and self.state is not state:
            log.info("asked to drain")
            self.must_drain.set()
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

"""One place of a runner: idle at an edge until a host takes it, then with that host's worker until it is over.

Owns the connection's coming and going. The worker outlives a cut for the grace that its host said; the host then counts
it as lost, and so does this side: it is ended, and the place offered anew.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import structlog
import trio

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.worker_link import LinkError
from supervisor.remote.connection import Address, Away, Connection, Forgotten, Refused, connected
from supervisor.remote.tenant import Tenant
from supervisor.workspaces.workspace import EMPTY_SECONDS

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 5.0
MAX_PAUSE_WITH_WORKER_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0  # for the end of a worker to be received
TAKE_SECONDS = EMPTY_SECONDS + 10.0  # for one message of the host; what takes longest is to empty a folder

JoinOf = Callable[[Tenant | None], link.Join]
TenantOf = Callable[[link.Joined], Tenant]


class Place:
    """`run` until `leave` was called and the worker is over. Raises Refused."""

    def __init__(self, address: Address, join_of: JoinOf, tenant_of: TenantOf, let_in: Callable[[], None]) -> None:
        """`let_in` is called when an edge has taken the place in as idle."""
        self._address = address
        self._join_of = join_of
        self._tenant_of = tenant_of
        self._let_in = let_in
        self._tenant: Tenant | None = None
        self._lost_at = -math.inf
        self._leaving = False
        self._was_joined = False  # over the connection that is or was the last
        self._attempt = trio.CancelScope()
        self._turn_over = trio.Event()

    async def run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        try:
            while not self._leaving or self._tenant is not None:
                try:
                    await self._connect()
                except Forgotten as forgotten:
                    log.info("place is free", reason=str(forgotten))
                    await self._drop()
                    pause = FIRST_PAUSE_SECONDS
                except Away as away:
                    log.warning("link lost", reason=str(away), with_worker=self._tenant is not None)
                    if self._tenant is None and self._leaving:
                        return
                    pause = await self._pause(pause)
        finally:
            if self._tenant is not None:
                self._tenant.sending.abandon()
                self._tenant.kill()

    async def _pause(self, seconds: float) -> float:
        """Wait before the next try; gives what to wait behind that. Shorter when a worker is at stake."""
        if self._was_joined:
            seconds = FIRST_PAUSE_SECONDS
        most = MAX_PAUSE_SECONDS if self._tenant is None else MAX_PAUSE_WITH_WORKER_SECONDS
        await trio.sleep(min(seconds, most) * (0.5 + random.random() / 2))
        return min(2 * seconds, most)

    async def leave(self) -> None:
        """Take no worker any more, and end the one that is here behind its turn; the caller bounds that."""
        self._leaving = True
        while self._tenant is not None and self._tenant.in_turn:
            self._turn_over = trio.Event()
            await self._turn_over.wait()
        if self._tenant is None or not self._tenant.is_ready:
            self._attempt.cancel()  # its host has a worker that was not ready started elsewhere
        else:
            self._tenant.retire()  # its end is told, and received, before the connection ends

    async def _drop(self) -> None:
        tenant, self._tenant = self._tenant, None
        if tenant is not None:
            await tenant.drop()

    async def _connect(self) -> None:
        """One connection, to its end. Raises Away, Refused, Forgotten."""
        tenant = self._tenant
        self._was_joined = False
        within = math.inf if tenant is None else self._lost_at + tenant.grace_seconds
        with trio.CancelScope(deadline=within) as self._attempt:
            try:
                async with connected(self._address) as connection:
                    await connection.send(link.encode(self._join_of(tenant)))
                    await self._serve(connection)
            except Refused:
                await self._drop()
                raise
            finally:
                if self._was_joined:
                    self._lost_at = trio.current_time()
        if tenant is not None:
            raise Forgotten(f"the link did not come back within {tenant.grace_seconds:g} s")
        if self._tenant is not None:
            raise Forgotten("it leaves, and its worker was not ready")

    async def _serve(self, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                text = await connection.receive()
                try:
                    message = link.decode(text)
                    if isinstance(message, link.Joined):
                        tenant = self._joined(message)
                        nursery.start_soon(tenant.sending.send_over, connection.send)
                        nursery.start_soon(self._until_over, tenant)
                    elif self._tenant is None:
                        self._let_in()
                    elif isinstance(message, link.Received):
                        self._tenant.sending.acknowledged(message.received)
                    else:
                        await self._take(self._tenant, message, text)
                except LinkError as error:
                    raise Forgotten(f"the host said {error}") from None

    async def _take(self, tenant: Tenant, message: link.LinkMessage | None, text: str) -> None:
        """All of it or, with the tenant, nothing: it counts as received, so no connection brings it again."""
        tenant.sending.count()
        with trio.move_on_after(TAKE_SECONDS, shield=True) as taking:
            await tenant.take(message, text)
        if taking.cancelled_caught:
            raise Forgotten(f"a message of the host was not taken within {TAKE_SECONDS:g} s")

    def _joined(self, joined: link.Joined) -> Tenant:
        if self._tenant is None:
            self._tenant = self._tenant_of(joined)
            self._tenant.turn_over = lambda: self._turn_over.set()
        elif self._tenant.worker_id != joined.worker:
            raise LinkError("the name of another worker")
        else:
            self._tenant.sending.resume(joined.received)
        self._was_joined = True
        self._attempt.deadline = math.inf
        return self._tenant

    async def _until_over(self, tenant: Tenant) -> None:
        await tenant.gone.wait()
        with trio.move_on_after(LAST_WORDS_SECONDS):
            await tenant.sending.until_received()
        raise Forgotten("its worker is over")

"""Takes over from a host whose process ended, at once instead of when its lease is over.

Two things together prove the end, and neither does alone: nobody listens where the host did, which a cut network does
not look like; and the lock that its session with the database held is free, which a restart of its link does not do.
Both are looked at twice. Should they ever be wrong, the host that was taken over from is fenced like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.gateway.link.client import LinkPhase
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreError
from lobu_actors.store.link_protocol import LinkStore

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.1


class Takeover:
    """A supervised child. `phases` are the links to other hosts, `look` finds what is owed and in nobody's hands."""

    def __init__(
        self, store: LinkStore, phases: Callable[[], Mapping[str, LinkPhase]], look: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._phases = phases
        self._look = look
        self._suspected: set[str] = set()

    async def run(self, context: ChildContext) -> None:
        context.started()
        while not context.stopping.is_set():
            gone = {host_id for host_id, phase in self._phases().items() if phase is LinkPhase.GONE}
            for host_id in gone & self._suspected:
                await self._take_over(host_id)
            self._suspected = gone
            with trio.move_on_after(LOOK_SECONDS):
                await context.stopping.wait()

    async def _take_over(self, host_id: str) -> None:
        try:
            if not await self._store.declare_dead_if_gone(host_id):
                return
        except StoreError as error:
            log.warning("not taken over, the store is away", host=host_id, error=str(error))
            return
        telemetry.TAKEOVERS.inc()
        log.warning("host is gone", host=host_id)
        await self._look()

"""What metrics cannot be told in passing and somebody has to look at: how much is owed, and how late the loop is."""

from __future__ import annotations

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.loop_lag import measure_loop_lag
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.owed_protocol import OwedStore

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0


class Gauges:
    """A supervised child."""

    def __init__(self, store: OwedStore, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._store = store
        self._look_seconds = look_seconds

    async def run(self, context: ChildContext) -> None:
        context.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure_loop_lag, telemetry.LOOP_LAG_SECONDS.observe)
            nursery.start_soon(self._look_at_debts)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _look_at_debts(self) -> None:
        while True:
            try:
                owed = await self._store.count_owed()
            except StoreUnavailable as error:
                # What stands there goes stale, and an alert on its age would fall silent: better none than an old one.
                log.debug("debts not counted, the store is away", error=str(error))
                telemetry.OWED_TURNS.clear()
                telemetry.OLDEST_OWED_SECONDS.set(float("nan"))
            else:
                telemetry.OWED_TURNS.labels("queued").set(owed.queued)
                telemetry.OWED_TURNS.labels("running").set(owed.running)
                telemetry.OLDEST_OWED_SECONDS.set(owed.oldest_seconds)
            await trio.sleep(self._look_seconds)

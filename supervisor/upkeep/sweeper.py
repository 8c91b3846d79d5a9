"""Finds what is owed and that nobody works on, and wakes its actor. Never ends a turn itself: the actor decides.

Makes a lost hint cost latency only, and is how a new host finds what its predecessor owed.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore
from lobu_actors.store.records import Owed

log = structlog.get_logger(__name__)

OVERDUE_SECONDS = 10.0  # seen overdue at every sweep for so long


class Sweeper:
    """A supervised child. `wake` is told of each find, those that an actor has in hand included; of those whose actor
    `seems_stuck` for long, and of broken promises wherever their owner is, `take_over` is."""

    def __init__(
        self,
        store: HostStore,
        host_id: Callable[[], str],
        wake: Callable[[Owed], None],
        take_over: Callable[[ConversationRef], None],
        seems_stuck: Callable[[ConversationRef], bool],
        *,
        interval_seconds: float,
        batch: int,
        older_than_seconds: float,
        in_a_hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """Younger than `older_than_seconds` has a hint under way and is left alone, unless `in_a_hurry`."""
        self._store = store
        self._host_id = host_id
        self._wake = wake
        self._take_over = take_over
        self._seems_stuck = seems_stuck
        self._overdue_since: dict[ConversationRef, float] = {}
        self._interval_seconds = interval_seconds
        self._batch = batch
        self._older_than_seconds = older_than_seconds
        self._in_a_hurry = in_a_hurry

    async def run(self, context: ChildContext) -> None:
        context.started()
        older_than = 0.0  # at start: all that a predecessor owed
        while not context.stopping.is_set():
            if self._in_a_hurry():
                older_than = 0.0
            try:
                found = await self._store.find_owed(self._host_id(), limit=self._batch, older_than_seconds=older_than)
                for owed in found:
                    telemetry.SWEPT.inc()
                    self._wake(owed)
                older_than = self._older_than_seconds
                await self._sweep_overdue([owed.ref for owed in found if self._seems_stuck(owed.ref)])
            except StoreUnavailable as error:
                log.warning("not swept, the store is away", error=str(error))
            with trio.move_on_after(self._interval_seconds):
                await context.stopping.wait()

    async def _sweep_overdue(self, stuck: list[ConversationRef]) -> None:
        """Take over what stays overdue or stuck. Not at first sight: after an outage of the store its owner needs a
        moment to go on, and to write that it is well."""
        now = trio.current_time()
        found = stuck + await self._store.find_overdue(limit=self._batch)
        self._overdue_since = {ref: self._overdue_since.get(ref, now) for ref in found}
        for ref, since in list(self._overdue_since.items()):
            if now - since >= OVERDUE_SECONDS:
                del self._overdue_since[ref]
                self._take_over(ref)

"""Writes by when this host's running turns will have been looked at: one statement a second for all of them, at most.

A deadline that only moved a little is not written again; heartbeats and deltas cost no write.

Here a host finds, within some seconds, what was taken over from it although its own clock says that it is trusted: the
machine slept, or was paused as a whole, and its monotonic clock with it. What is left of it here is ended.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio
from msgspec.structs import replace

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.promises import Promise, Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore
from lobu_actors.store.records import MarkerDeadline

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
STEP_SECONDS = 5.0  # well below the slack of a promise
BATCH = 1000


class Deadlines:
    """A supervised child. `give_up` ends the actor of a conversation that another host has."""

    def __init__(
        self,
        store: HostStore,
        host_id: Callable[[], str],
        promises: Promises,
        running: RunningClock,
        give_up: Callable[[ConversationRef], object],
    ) -> None:
        self._give_up = give_up
        self._store = store
        self._host_id = host_id
        self._promises = promises
        self._running = running
        self._written: dict[ConversationRef, tuple[Promise, float]] = {}  # and until when, by the real clock

    async def run(self, context: ChildContext) -> None:
        context.started()
        while not context.stopping.is_set():
            try:
                await self._write()
            except StoreUnavailable as error:
                log.warning("deadlines not written, the store is away", error=str(error))
            with trio.move_on_after(INTERVAL_SECONDS):
                await context.stopping.wait()

    async def _write(self) -> None:
        made = self._promises.made
        for ref in self._written.keys() - made.keys():
            del self._written[ref]
        moved = {ref: promise for ref, promise in made.items() if self._has_moved(ref, promise)}
        rows = [
            MarkerDeadline(
                ref.organization_id,
                turn_id,
                promise.run_id,
                promise.until - self._running.now(),
                promise.provider_code,
            )
            for ref, promise in moved.items()
            for turn_id in promise.turn_ids
        ]
        written: set[str] = set()
        for start in range(0, len(rows), BATCH):
            written |= await self._store.extend_deadlines(self._host_id(), rows[start : start + BATCH])
        await self._end_taken(
            {ref: promise for ref, promise in moved.items() if not written.issuperset(promise.turn_ids)}
        )
        # What was left out is tried again at the next look, unless its run has ended.
        self._written.update(
            {
                ref: (promise, self._running.real(promise.until))
                for ref, promise in moved.items()
                if written.issuperset(promise.turn_ids)
            }
        )

    async def _end_taken(self, left_out: dict[ConversationRef, Promise]) -> None:
        """Of what was left out, that of which another host has the lease. The rest was locked, or has just ended."""
        if not left_out:
            return
        held = await self._store.find_held(self._host_id(), list(left_out))
        for ref, promise in left_out.items():
            now = self._promises.made.get(ref)
            if ref not in held and now is not None and now.run_id == promise.run_id:
                telemetry.FENCED_WRITES.labels("extend_deadlines").inc()
                log.warning("taken over by another host", conversation=ref.conversation_id)
                self._give_up(ref)

    def _has_moved(self, ref: ConversationRef, promise: Promise) -> bool:
        known, until = self._written.get(ref, (None, 0.0))
        if known is None or replace(known, until=promise.until) != promise:
            return True
        return abs(self._running.real(promise.until) - until) >= STEP_SECONDS

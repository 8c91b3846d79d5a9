"""One task for the timers of any number of actors: a heap, and a wait for its top. A cancelled timer costs nothing.

Callbacks run in the timers' own task, so they must be quick and must not raise: typically they put a message into a
mailbox. Times are `trio.current_time()` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import trio

from lobu_actors.runtime.child_spec import ChildContext


class Timer:
    """A callback that will be called once at `at`, unless it is cancelled before."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._sooner = trio.Event()

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        timer = Timer(at, call)
        heappush(self._heap, (at, next(self._order), timer))
        if self._heap[0][2] is timer:
            self._sooner.set()
        return timer

    async def run(self, context: ChildContext) -> None:
        """A supervised child; ends when it is told to stop."""
        context.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fire)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def fire(self) -> None:
        """Each at its time, until cancelled."""
        while True:
            self._fire_due()
            self._sooner = trio.Event()
            until = self._heap[0][0] if self._heap else float("inf")
            with trio.move_on_at(until):
                await self._sooner.wait()

    def _fire_due(self) -> None:
        now = trio.current_time()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].call is None):
            call = heappop(self._heap)[2].call
            if call is not None:
                call()

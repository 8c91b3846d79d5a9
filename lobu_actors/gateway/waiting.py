"""Waiting for news or for a time, whichever is first. Knows not of what the news are.

No cancel scope for each wait, since nearly all of them end long before their time: all who wait share one alarm, at the
earliest of their times or before, and one that was set for a wait does for the next.

Of many, a few are woken in one pass of the event loop, and whatever else is ready has its turn in between: else two
thousand readers of one reply hold every other conversation up, at each of its steps, for as long as it takes to write
to all of them. Each is woken once a round, so what comes meanwhile goes out together.
"""

from __future__ import annotations

from collections import deque

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from lobu_actors.runtime.timers import Timer, Timers

FEW = 8  # are woken at once, whoever else there is
WOKEN_AT_ONCE = 32  # of all the others of the process, in one pass of the event loop


class Line:
    """Those of whom many are to be woken, one after the other; `timers` run as long as anybody waits."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self._line: deque[Waiting] = deque()

    def join(self, waiting: Waiting) -> None:
        self._line.append(waiting)
        if len(self._line) == 1:
            self._go_on()

    def _go_on(self) -> None:
        self.timers.call_at(trio.current_time(), self._next)

    def _next(self) -> None:
        waiting = self._line[0]
        more = waiting.wake_some(WOKEN_AT_ONCE)
        self._line.popleft()
        if more:
            self._line.append(waiting)
        if self._line:
            self._go_on()


class Waiting:
    """Those who wait for the same. Times are trio's clock's."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._until: dict[Task, float] = {}
        self._called: dict[Task, None] = {}  # in line
        self._alarm: Timer | None = None

    @enable_ki_protection
    async def wait(self, until: float) -> None:
        """Until `wake` is called, or until then."""
        task = trio.lowlevel.current_task()
        self._until[task] = until
        if self._alarm is None or until < self._alarm.at:
            self._set_alarm(until)

        def abort(_: RaiseCancelT) -> Abort:
            self._until.pop(task, None)
            self._called.pop(task, None)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    @enable_ki_protection
    def wake(self) -> None:
        woken, self._until = self._until, {}
        if len(woken) <= FEW:
            for task in woken:
                trio.lowlevel.reschedule(task)
            return
        in_line = bool(self._called)
        self._called.update(dict.fromkeys(woken))
        if not in_line:
            self._line.join(self)

    @enable_ki_protection
    def wake_some(self, number: int) -> bool:
        """Of those in line; whether there are more."""
        for task in list(self._called)[:number]:
            del self._called[task]
            trio.lowlevel.reschedule(task)
        return bool(self._called)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._line.timers.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = trio.current_time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            trio.lowlevel.reschedule(task)
        if self._until:
            self._set_alarm(min(self._until.values()))

"""Waiting for news or for a time, whichever is first. Knows not of what the news are.

No cancel scope for each wait, since nearly all of them end long before their time: all who wait share one alarm, at the
earliest of their times or before, and one that was set for a wait does for the next.
"""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from lobu_actors.runtime.timers import Timer, Timers


class Waiting:
    """Those who wait, as long as `timers` run. Times are trio's clock's."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._until: dict[Task, float] = {}
        self._alarm: Timer | None = None

    @enable_ki_protection
    async def wait(self, until: float) -> None:
        """Until `wake` is called, or until then."""
        task = trio.lowlevel.current_task()
        self._until[task] = until
        if self._alarm is None or until < self._alarm.at:
            self._set_alarm(until)

        def abort(_: RaiseCancelT) -> Abort:
            del self._until[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    @enable_ki_protection
    def wake(self) -> None:
        woken, self._until = self._until, {}
        for task in woken:
            trio.lowlevel.reschedule(task)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._timers.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = trio.current_time()
        for task in [task for task, until in self._until.items() if until <= now]:
            del self._until[task]
            trio.lowlevel.reschedule(task)
        if self._until:
            self._set_alarm(min(self._until.values()))

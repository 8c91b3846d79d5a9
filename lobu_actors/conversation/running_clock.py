"""Seconds in which this host's workers could run: the clock of all deadlines of a run.

It stands still from the moment until which the host trusts that it holds its leases, since its workers are frozen then,
so that a pause of the database fails no turn. That moment is known before it comes: a process that was paused itself
finds the clock standing where it should, whatever it looks at first. Set by the supervisor, read by the actors.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio

LOOK_SECONDS = 1.0  # while it stands


class RunningClock:
    """Runs for ever unless `go_on` was told until when."""

    def __init__(self, time: Callable[[], float] = trio.current_time) -> None:
        self._time = time
        self._lost = 0.0
        self._until = inf

    @property
    def until(self) -> float:
        """When it will stand still, by `time`."""
        return self._until

    @property
    def stands(self) -> bool:
        return self._time() >= self._until

    def now(self) -> float:
        return min(self._time(), self._until) - self._lost

    def real(self, at: float) -> float:
        """When it will be `at`, by `time`, if it does not stand still from now on."""
        return at + self._time() - self.now()

    def look_at(self, at: float) -> float:
        """When to look, by `time`, whether it is `at`. While it stands, nobody knows: now and then."""
        return max(self.real(at), self._time() + LOOK_SECONDS) if self.stands else self.real(at)

    def go_on(self, until: float) -> float:
        """Run, until then; gives for how long it stood."""
        stood = max(0.0, self._time() - self._until)
        self._lost += stood
        self._until = until
        return stood

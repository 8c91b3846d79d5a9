"""Seconds in which this host's workers could run: the clock of all deadlines of a run.

It stands still while the host does not trust that it holds its leases and its workers are frozen, so that a pause of
the database fails no turn. Kept by the supervisor, read by the actors.
"""

from __future__ import annotations

from collections.abc import Callable

import trio


class RunningClock:
    """Counts from where `time` stands when it is made."""

    def __init__(self, time: Callable[[], float] = trio.current_time) -> None:
        self._time = time
        self._lost = 0.0
        self._stopped_at: float | None = None

    def now(self) -> float:
        return (self._time() if self._stopped_at is None else self._stopped_at) - self._lost

    def real(self, at: float) -> float:
        """When it will be `at`, by `time`, unless the clock is stopped again before or is not started now."""
        return at + self._time() - self.now()

    def stop(self) -> None:
        """Stand still; nothing when it does."""
        if self._stopped_at is None:
            self._stopped_at = self._time()

    def start(self) -> float:
        """Go on; gives for how long it stood."""
        if self._stopped_at is None:
            return 0.0
        stood = self._time() - self._stopped_at
        self._lost += stood
        self._stopped_at = None
        return stood

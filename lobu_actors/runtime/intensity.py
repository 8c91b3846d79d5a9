"""How often something may be restarted, and how long to wait before it is.

Owns two pure calculations over monotonic seconds, borrowed from OTP's `supervisor.erl` (`add_restart`), plus a backoff
that OTP does not have. Knows no clock, no task and no child.
"""

import math

import attrs

__all__ = ["Backoff", "Intensity", "record"]


@attrs.frozen
class Intensity:
    """At most `max_restarts` within any window of `within_seconds`; one more is too many. 0 restarts means never."""

    max_restarts: int
    within_seconds: float

    def __attrs_post_init__(self) -> None:
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts must be 0 or more, not {self.max_restarts}")
        if not 0 < self.within_seconds < math.inf:
            raise ValueError(f"within_seconds must be positive and finite, not {self.within_seconds}")


@attrs.frozen
class Backoff:
    """Exponential delay before a restart: `initial_seconds`, then times `factor` each time, at most `max_seconds`."""

    initial_seconds: float
    factor: float
    max_seconds: float

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.initial_seconds <= self.max_seconds < math.inf:
            raise ValueError("a backoff needs 0 <= initial_seconds <= max_seconds, and max_seconds finite")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"a backoff's factor must be 1 or more and finite, not {self.factor}")

    def delay(self, restart_number: int) -> float:
        """Seconds to wait before restart number `restart_number`, counted from 1."""
        if restart_number < 1:
            raise ValueError(f"restarts are counted from 1, not {restart_number}")
        try:
            return min(self.initial_seconds * self.factor ** (restart_number - 1), self.max_seconds)
        except OverflowError:
            return self.max_seconds


def record(history: tuple[float, ...], now: float, intensity: Intensity) -> tuple[tuple[float, ...], bool]:
    """Add a restart at `now` and say whether that is one too many.

    `history` is what the last call returned, () at first; `now` must not go backwards. As in OTP, a restart that is
    exactly `within_seconds` old still counts. The history never holds more than `max_restarts + 1` times.
    """
    recent = (*(then for then in history if now - then <= intensity.within_seconds), now)
    return recent[-(intensity.max_restarts + 1) :], len(recent) > intensity.max_restarts

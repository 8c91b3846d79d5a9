"""When to try again, and how long to wait before. Pure but for the jitter's random number."""

from __future__ import annotations

import random

import msgspec

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class RetryPolicy(msgspec.Struct, frozen=True):
    """`attempts` in a row without anything new in between, then give up. All waits are at most `max_seconds`.

    The wait doubles from `base_seconds` and is spread over its upper half, so that the clients that one server lost
    do not all come back at one moment.
    """

    attempts: int = 8
    base_seconds: float = 1.0
    max_seconds: float = 15.0

    def delay_seconds(self, failures: int, base_seconds: float | None = None) -> float:
        """The wait after the `failures`-th failure in a row (from 1). `base_seconds`: what the server asked for."""
        base = self.base_seconds if base_seconds is None else base_seconds
        full = min(base * float(1 << min(max(failures - 1, 0), 30)), self.max_seconds)
        return full * (0.5 + random.random() / 2)

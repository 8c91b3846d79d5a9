"""How many requests each caller may send: a token bucket per credential, in this process, in bounded memory.

Who was forgotten begins with a full bucket. So the bound gives more to some callers, and never less to anybody.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from edge.errors import Refusal
from edge.settings import EdgeSettings
from lobu_actors.contract.errors import ApiError


class Rates:
    """Buckets of `request_burst`, filled with `requests_per_second`. `clock` gives seconds, never backwards."""

    def __init__(self, settings: EdgeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = settings.requests_per_second
        self._burst = float(settings.request_burst)
        self._capacity = settings.rate_entries
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (left, when that was)

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, credential: str) -> None:
        """One request of this caller's. Raises Refusal 429 when it has none left."""
        if not self._rate:
            return
        now = self._clock()
        left, since = self._buckets.get(credential, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        if left < 1.0:
            # Nothing is written: a caller that does not stop still gets its share.
            wait = math.ceil((1.0 - left) / self._rate)
            sentence = "These credentials send more requests than they may; wait."
            raise Refusal(429, ApiError.RATE_LIMITED, sentence, retry_after_seconds=wait)
        self._buckets[credential] = (left - 1.0, now)
        self._buckets.move_to_end(credential)
        if len(self._buckets) > self._capacity:
            self._buckets.popitem(last=False)

"""How many event streams are open, and the word to end them all. Must not know what they carry.

A stream's place is given back by leaving its context, which the request's scope does whatever way the request ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from edge import metrics
from edge.errors import Refusal
from edge.settings import EdgeSettings
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed

_RETRY_SECONDS = 5


class Streams:
    """Counts of open streams, bounded in the process and per conversation."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self._by_conversation: Counter[ConversationRef] = Counter()
        self._feeds: Counter[Feed] = Counter()
        self._open = 0
        self.stopping = False

    def __len__(self) -> int:
        return self._open

    def of(self, ref: ConversationRef) -> int:
        return self._by_conversation.get(ref, 0)

    @contextmanager
    def place(self, ref: ConversationRef) -> Iterator[None]:
        """Raises Refusal 429 when there is no room."""
        limit = self.settings.max_streams_per_conversation
        if self.of(ref) >= limit:
            raise _too_many(f"This conversation has {limit} open streams already; close one.")
        if self._open >= self.settings.max_streams:
            raise _too_many("This server has as many open streams as it takes; try again later.")
        self._by_conversation[ref] += 1
        self._open += 1
        metrics.STREAMS_OPEN.inc()
        try:
            yield
        finally:
            self._open -= 1
            metrics.STREAMS_OPEN.dec()
            self._by_conversation[ref] -= 1
            if not self._by_conversation[ref]:
                del self._by_conversation[ref]

    @contextmanager
    def waking(self, feed: Feed) -> Iterator[None]:
        """While a stream waits on `feed`, `stop` wakes it."""
        self._feeds[feed] += 1
        try:
            yield
        finally:
            self._feeds[feed] -= 1
            if not self._feeds[feed]:
                del self._feeds[feed]

    def stop(self) -> None:
        """Have every open stream, and every later one, say `drain` and end."""
        self.stopping = True
        for feed in list(self._feeds):
            feed.wake()


def _too_many(sentence: str) -> Refusal:
    return Refusal(429, ApiError.TOO_MANY_STREAMS, sentence, retry_after_seconds=_RETRY_SECONDS)

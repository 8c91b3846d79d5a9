"""How many event streams are open, and the word to end them all. Must not know what they carry.

A stream's place is given back by leaving its context, which the request's scope does whatever way the request ends.
"""

from __future__ import annotations

from collections import Counter
from typing import Self

import trio

from edge import metrics
from edge.deliveries import Deliveries
from edge.errors import Refusal
from edge.settings import EdgeSettings
from edge.tracing import SpanSink, Traces
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed

_RETRY_SECONDS = 5


class Place:
    """One open stream's, until its context is left. `over`: it is to say `drain` and end."""

    __slots__ = ("_ref", "_streams", "feed", "over")

    def __init__(self, streams: Streams, ref: ConversationRef) -> None:
        self._streams = streams
        self._ref = ref
        self.over = streams.stopping
        self.feed: Feed | None = None  # what it waits on

    def __enter__(self) -> Self:
        self._streams.open(self, self._ref)
        return self

    def __exit__(self, *_: object) -> None:
        self._streams.close(self, self._ref)

    def end(self) -> None:
        self.over = True
        if self.feed is not None:
            self.feed.wake()


class Streams:
    """Counts of open streams, bounded in the process and per conversation."""

    def __init__(self, settings: EdgeSettings, spans: SpanSink | None = None) -> None:
        self.settings = settings
        self.traces = Traces(spans, settings.trace_entries)
        self._by_conversation: Counter[ConversationRef] = Counter()
        self._places: dict[Place, None] = {}  # oldest first
        self.stopping = False
        self.deliveries = Deliveries(settings.delivery_entries, self.traces)
        self.stopped = trio.Event()  # all were told; what else is open is to end as well
        self.worker_links = 0

    def __len__(self) -> int:
        return len(self._places)

    def of(self, ref: ConversationRef) -> int:
        return self._by_conversation.get(ref, 0)

    def place(self, ref: ConversationRef) -> Place:
        """Taken when its context is entered, at once. Raises Refusal 429 when there is no room."""
        limit = self.settings.max_streams_per_conversation
        if self.of(ref) >= limit:
            raise _too_many(f"This conversation has {limit} open streams already; close one.")
        if len(self) >= self.settings.max_streams:
            raise _too_many("This server has as many open streams as it takes; try again later.")
        return Place(self, ref)

    def open(self, place: Place, ref: ConversationRef) -> None:
        self._by_conversation[ref] += 1
        self._places[place] = None
        metrics.STREAMS_OPEN.inc()

    def close(self, place: Place, ref: ConversationRef) -> None:
        del self._places[place]
        metrics.STREAMS_OPEN.dec()
        self._by_conversation[ref] -= 1
        if not self._by_conversation[ref]:
            del self._by_conversation[ref]

    async def stop(self) -> None:
        """Have every open stream, and at once every later one, say `drain` and end.

        One after the other, at most `drain_seconds` long: all their readers come to another edge next, and whoever is
        not last in a line there has a shorter pause. Those that are not ended yet go on as before. Cancelled, or ended
        by the host's own drain, the rest ends at once.
        """
        self.stopping = True
        places = list(self._places)
        pause = min(self.settings.drain_spacing_seconds, self.settings.drain_seconds / max(1, len(places)))
        try:
            for place in places:
                if place in self._places:
                    place.end()
                    await trio.sleep(pause)
        finally:
            for place in list(self._places):
                place.end()
            self.stopped.set()


def _too_many(sentence: str) -> Refusal:
    return Refusal(429, ApiError.TOO_MANY_STREAMS, sentence, retry_after_seconds=_RETRY_SECONDS)

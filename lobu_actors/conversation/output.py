"""What the running attempt has said so far, shown to readers through the feed. Never waits, never writes."""

from __future__ import annotations

from collections.abc import Sequence

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.text import SurrogateJoiner
from lobu_actors.gateway.feed import LiveText
from lobu_actors.gateway.writer import FeedWriter
from lobu_actors.store.records import Event


class Output:
    def __init__(self, feed: FeedWriter, last_seq: int) -> None:
        self._feed = feed
        self._last_seq = last_seq
        self._live: LiveText | None = None
        self._joiner = SurrogateJoiner()

    def begin(self, message_id: str, attempt: int, start_seq: int | None = None) -> None:
        """An attempt's text begins, behind the newest event; an adopted one's behind `start_seq`."""
        self._live = LiveText(message_id, attempt, self._last_seq if start_seq is None else start_seq)
        self._joiner = SurrogateJoiner()
        self._feed.begin_text(self._live)

    def push(self, text: str) -> None:
        if self._live is not None:
            self._feed.append_text(self._joiner.push(text))

    def status(self, status: str, phase: str | None, message_id: str, extra: events.Data) -> None:
        data = events.status(status, phase, message_id, self._feed.clock_ms())
        self._feed.transient(EventType.STATUS, events.with_extra(data, extra))

    def ephemeral(self, text: str, message_id: str | None, extra: events.Data) -> None:
        data = events.ephemeral(text, message_id, self._feed.clock_ms())
        self._feed.transient(EventType.EPHEMERAL, events.with_extra(data, extra))

    def final_text(self, own: str | None) -> str:
        """The whole reply: what the worker itself gave as such, else all that it streamed.

        When the first goes on where the second ends, the rest is shown too.
        """
        if self._live is None:
            return own or ""
        self._feed.append_text(self._joiner.flush())
        streamed = self._live.whole()
        if own is not None and own.startswith(streamed):
            self._feed.append_text(own[len(streamed) :])
        return streamed if own is None else own

    @property
    def position(self) -> tuple[int, int] | tuple[None, None]:
        """(attempt, code points) of what runs now, to be kept with events that are written meanwhile."""
        return (None, None) if self._live is None else (self._live.attempt, self._live.length)

    def publish(self, committed: Sequence[Event]) -> None:
        """Events that are in the log now."""
        for event in committed:
            self._feed.durable(event)
            self._last_seq = event.seq

    def end(self) -> None:
        """The attempt is over; what ended it was published before."""
        self._live = None
        self._feed.end_text()

"""The right to write a feed. The newest epoch has it, so that of a conversation's actor here, its predecessor, and what
other hosts tell of it only one is shown, whatever the order in which they speak up.

A writer that has lost the right is not told: what it writes is left out. It matters to nobody, since what it might have
committed would have been refused for the same reason.
"""

from __future__ import annotations

from lobu_actors.contract.events import Data, EventType
from lobu_actors.gateway.feed import Feed, LiveText
from lobu_actors.store.records import Event


class FeedWriter:
    """One owner's way to the feed; `epoch` is its lease's, `last_seq` the newest event when it began."""

    def __init__(self, feed: Feed, epoch: int, last_seq: int) -> None:
        self._feed = feed
        if epoch >= feed.epoch:
            feed.taken_by(self, epoch, last_seq)

    @property
    def writes(self) -> bool:
        """False once somebody else does."""
        return self._feed.writer is self

    def clock_ms(self) -> int:
        return self._feed.clock_ms()

    def begin_text(self, text: LiveText) -> None:
        if self.writes:
            self._feed.begin_text(text)

    def append_text(self, text: str) -> None:
        if self.writes:
            self._feed.append_text(text)

    def end_text(self) -> None:
        if self.writes:
            self._feed.end_text()

    def transient(self, type: EventType, data: Data) -> None:
        if self.writes:
            self._feed.transient(type, data)

    def durable(self, event: Event) -> None:
        """A committed event: it is in the log whoever writes now."""
        if self.writes:
            self._feed.durable(event)
        else:
            self._feed.know(event.seq)

    def know(self, seq: int) -> None:
        self._feed.know(seq)

"""The server's side of one followed conversation: what to tell next so that the follower's feed becomes like this one.

Pulls from the feed as a reader does, at the speed of the connection: it remembers what it told last and finds what is
new since. A follower that falls behind the items that the feed keeps is told the present state anew, and reads what it
missed in the log. Pure but for the feed.
"""

from __future__ import annotations

from lobu_actors.gateway.feed import Feed, Item, LiveText
from lobu_actors.gateway.link import wire


class FeedSource:
    """`next` gives frames in order, None when there is nothing more for now."""

    def __init__(self, follow: int, feed: Feed, epoch: int) -> None:
        self._follow = follow
        self._feed = feed
        self._epoch = epoch
        self._begun = False
        self._position = 0
        self._text: LiveText | None = None  # that was told last
        self._told = 0  # code points of it

    def next(self) -> str | None:
        feed = self._feed
        if not self._begun or self._position < feed.first:
            return self._begin()
        if self._position < feed.end:
            item = feed.items[self._position - feed.first]
            frame = self._catch_up(item.text, item.text_length)
            if frame is not None:
                return frame
            self._position += 1
            return self._item(item) or self.next()
        return self._catch_up(feed.text, feed.text.length if feed.text is not None else 0)

    def _begin(self) -> str:
        feed = self._feed
        self._begun, self._position = True, feed.end
        text = None if feed.text is None else self._text_of(feed.text, feed.text.length)
        if text is None:
            self._text, self._told = None, 0
        return wire.encode(wire.Live(self._follow, self._epoch, feed.last_seq, text))

    def _catch_up(self, text: LiveText | None, length: int) -> str | None:
        if text is not self._text:
            if text is None:
                self._text, self._told = None, 0
                return wire.encode(wire.TextEnded(self._follow))
            return wire.encode(wire.Begun(self._follow, self._text_of(text, length)))
        if text is None or self._told >= length:
            return None
        start, self._told = self._told, min(length, self._told + wire.TEXT_CHARS)
        return wire.encode(wire.Appended(self._follow, start, text.slice(start, self._told)))

    def _text_of(self, text: LiveText, length: int) -> wire.Text:
        self._text, self._told = text, min(length, wire.TEXT_CHARS)
        return wire.Text(text.message_id, text.attempt, text.start_seq, text.slice(0, self._told), length)

    def _item(self, item: Item) -> str | None:
        """None: it cannot be told, and nobody needs it."""
        try:
            if item.event is None:
                return wire.encode(wire.Transient(self._follow, item.type, item.data))
            frame = wire.encode(wire.Durable.of(self._follow, item.event))
        except wire.WireError:
            frame = ""
        if item.event is not None and not 0 < len(frame) <= wire.MAX_EVENT_BYTES:
            frame = wire.encode(wire.InLog(self._follow, item.event.seq))
        return frame or None

"""The live view of one conversation: recent events in order, and the running attempt's text.

The owner's actor writes it after each commit; any number of readers pull from it at their own speed. There is no queue
per reader: a reader holds a position, and what it takes is everything between that and the end, so output coalesces by
itself when a reader is slower than the worker, and a stalled reader costs nothing. The feed keeps the newest
`KEPT_ITEMS` items only; a reader that falls behind them is told so by `Behind` and reads the event log instead: it may
lose deltas and transient events, never a durable one.

Rejected: a bounded channel per reader (copies each delta once a reader, and needs a rule that spares terminals).
Must not know: SSE, HTTP, the database.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from lobu_actors.contract import events
from lobu_actors.contract.events import Cursor, Data, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.waiting import Line, Waiting
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.records import Event

KEPT_ITEMS = 256
TAKEN_CHARS = 64 * 1024


class LiveText:
    """The text of one attempt at a run, growing at its end. Offsets count code points.

    `start_seq` is the newest event's seq when the attempt began: later events of the log came while it ran.
    """

    def __init__(self, message_id: str, attempt: int, start_seq: int, text: str = "") -> None:
        self.message_id = message_id
        self.attempt = attempt
        self.start_seq = start_seq
        self._parts: list[str] = []
        self._starts: list[int] = []
        self.length = 0
        if text:
            self.append(text)

    def append(self, text: str) -> None:
        self._parts.append(text)
        self._starts.append(self.length)
        self.length += len(text)

    def slice(self, start: int, end: int) -> str:
        """Code points start..end; costs the number of parts in between."""
        if start >= end:
            return ""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1)
        joined = "".join(self._parts[first:last])
        base = self._starts[first]
        return joined[start - base : end - base]

    def whole(self) -> str:
        text = "".join(self._parts)
        self._parts, self._starts = ([text], [0]) if text else ([], [])
        return text


class Item(msgspec.Struct, frozen=True):
    """One event in the feed's order; `text_length` is how long `text` was when the event came."""

    type: EventType
    data: Data
    text: LiveText | None
    text_length: int
    event: Event | None = None  # set when the event is durable


class Outgoing(msgspec.Struct, frozen=True):
    """One event for a reader. `cursor` is None for events that no reader resumes from."""

    type: EventType
    data: Data
    cursor: Cursor | None


class Behind(Exception):
    """The reader's place is no longer in the feed; read the event log from its cursor and attach again."""


class Feed:
    """One conversation's live view. Written through `FeedWriter`, read through `FeedReader`."""

    def __init__(self, clock_ms: Callable[[], int], line: Line) -> None:
        self.clock_ms = clock_ms
        self.waiting = Waiting(line)
        """For readers, until something is added after their last look."""
        self.text: LiveText | None = None
        self.items: list[Item] = []  # at most `KEPT_ITEMS`; most feeds stand still with none
        self.first = 0  # position of items[0]
        self.readers = 0
        self.last_seq = 0  # the newest event that is known to be in the log
        self.looks = 0  # how often somebody said that there may be more in the log
        self.unheard = False  # its owner may be a host from which nothing is heard: the log is all that there is
        self.expected_until = -math.inf  # trio clock; before it another host may still say what runs
        self.epoch = 0  # of the lease under which it is written
        self.writer: object | None = None
        self.polling = False  # one of the readers asks the log whether it has more
        self.polled_at = -math.inf  # trio clock; when one of them has asked last, for what is behind `polled_from`
        self.polled_from = 0
        self._piece: tuple[LiveText, tuple[int, int, int], Outgoing] | None = None  # of text, that a reader took last
        self.encoded: tuple[Outgoing, object, bytes] | None = None  # what of it went out last, and by which encoding
        self._watchers: list[Callable[[], None]] = []

    @property
    def end(self) -> int:
        return self.first + len(self.items)

    def begin_text(self, text: LiveText) -> None:
        """A new attempt starts, or an adopted one goes on with the text that it has."""
        self.text = text
        if text.length or self._watchers:
            self.wake()

    def append_text(self, text: str) -> None:
        if self.text is not None and text:
            self.text.append(text)
            self.wake()

    def end_text(self) -> None:
        """The attempt is over; call it behind its terminal event. Without one, readers hear `restart` from the next."""
        if self.text is not None:
            self.text = None
            self.wake()

    def transient(self, type: EventType, data: Data) -> None:
        self._push(type, data)

    def durable(self, event: Event) -> None:
        """A committed event, at its place in the running text."""
        self.last_seq = max(self.last_seq, event.seq)
        self._push(event.type, event.data, event)

    def taken_by(self, writer: object, epoch: int, last_seq: int) -> None:
        """Somebody else writes from now on; what readers lack up to `last_seq` is in the log."""
        self.writer, self.epoch, self.text = writer, epoch, None
        self.know(last_seq)

    def know(self, seq: int) -> None:
        """The log has events up to `seq`; a reader that lacks some reads them there."""
        self.last_seq = max(self.last_seq, seq)
        self.wake()

    def look(self) -> None:
        """Something was written that nobody tells: have every reader look into the log."""
        self.looks += 1
        self.wake()

    def settle(self) -> None:
        """Nobody is about to say what runs any more."""
        if self.expected_until > -math.inf:
            self.expected_until = -math.inf
            self.wake()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called with every change, until `unwatch`; it must neither wait nor raise."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        self._watchers.remove(changed)

    def wake(self) -> None:
        """Have every reader look again (at a drain flag, for one)."""
        self.waiting.wake()
        for changed in self._watchers:
            changed()

    def forget_items(self) -> None:
        self.first = self.end
        self.items.clear()
        self._piece = self.encoded = None

    def output(self, text: LiveText, seq: int, offset: int, upto: int) -> Outgoing:
        """What lies between, for a reader that has the log up to `seq`: one object for all who are as far as this."""
        place = (seq, offset, upto)
        if self._piece is not None and self._piece[0] is text and self._piece[1] == place:
            return self._piece[2]
        data = events.output(text.slice(offset, upto), text.message_id, self.clock_ms())
        piece = Outgoing(EventType.OUTPUT, data, Cursor(seq, text.attempt, upto))
        self._piece = (text, place, piece)
        return piece

    def _push(self, type: EventType, data: Data, event: Event | None = None) -> None:
        self.items.append(Item(type, data, self.text, self.text.length if self.text else 0, event))
        if len(self.items) > KEPT_ITEMS or not self.readers:
            self.first += 1
            del self.items[0]
        self.wake()


class FeedReader:
    """One reader's place: how far it is in the log, and how much it holds of the text that ran there.

    `attach` BEFORE reading the event log up to its end: what is committed meanwhile is then in both, never in neither,
    and `take` leaves out what the log had.
    """

    def __init__(self, feed: Feed, cursor: Cursor) -> None:
        self._feed = feed
        self._seq = cursor.seq
        self._held = None if cursor.attempt is None else (cursor.attempt, cursor.offset or 0)
        self._position = feed.end
        self._covered = 0  # what the log is read to, at least
        self._looks = feed.looks
        self._ended_seq = 0  # behind this event nothing of an earlier text may come

    @property
    def seq(self) -> int:
        """The newest durable event that the reader has."""
        return self._seq

    @property
    def missed(self) -> int:
        """Items that went by before this reader took them: the durable ones are in the log, the rest is lost to it."""
        return max(0, self._feed.first - self._position)

    def attach(self) -> None:
        """Take the feed's end as the reader's place."""
        self._position, self._covered, self._looks = self._feed.end, self._feed.last_seq, self._feed.looks

    def resume_behind(self, event: Event, text_start: int) -> None:
        """The reader's cursor was `event`, or output behind it: then it holds what that cursor says. All text from
        before `text_start` is over; what other hosts tell may be older than what the reader has."""
        self._held = self._held or _text_position(event)
        self._ended_seq = text_start

    def replay(self, event: Event, *, over: bool) -> list[Outgoing]:
        """An event of the log to be sent on, and before it the text that ran before it, if that is still known.

        `over`: a later event of the log says that what ran then has ended, so nothing of its text can be lacked.
        """
        out: list[Outgoing] = []
        position = _text_position(event)
        text = self._feed.text
        while position is not None and text is not None and event.seq > text.start_seq:
            if self._follow(text, position[1], out):
                break
        return [*out, self._pass(event, over=over)]

    def take(self) -> list[Outgoing]:
        """What is new, text coalesced; empty when there is nothing. Raises Behind.

        At most `TAKEN_CHARS` of text at a time, so that a reader who comes late to a long reply holds a piece of it;
        call it again while it gives something.
        """
        feed = self._feed
        out: list[Outgoing] = []
        if self._position < feed.first or self._looks != feed.looks:
            raise Behind
        while self._position < feed.end:
            item = feed.items[self._position - feed.first]
            event = item.event
            if event is not None and event.seq > self._seq + 1:
                if out:
                    return out
                raise Behind
            over = event is None and item.text is not None and item.text.start_seq < self._ended_seq
            if over or (event is not None and event.seq <= self._seq):
                self._position += 1
                continue
            if item.text is not None and not self._follow(item.text, item.text_length, out):
                return out
            self._position += 1
            if event is None:
                out.append(Outgoing(item.type, item.data, None))
            else:
                out.append(self._pass(event))
        if feed.last_seq > max(self._seq, self._covered):
            if out:
                return out
            raise Behind
        if feed.text is not None:
            self._follow(feed.text, feed.text.length, out)
        return out

    def _pass(self, event: Event, *, over: bool = False) -> Outgoing:
        """A bare id says that all text before the event is there. While its owner is not heard it is not: it comes
        behind the event, and an id with the offset says how much of it a reader that comes back has."""
        self._seq = event.seq
        position = _text_position(event)
        cursor = Cursor(event.seq)
        if position is None or event.begins_anew:
            self._ended_seq = event.seq
        elif not over:
            attempt, offset = position
            held = self._held[1] if self._held is not None and self._held[0] == attempt else 0
            if held != offset:
                position = (attempt, held)
                cursor = Cursor(event.seq, attempt, held)
        self._held = position
        return Outgoing(event.type, event.data, cursor)

    def _follow(self, text: LiveText, length: int, out: list[Outgoing]) -> bool:
        """Emit what the reader lacks of `text` up to `length`; first `restart` when it holds another attempt's.

        False: there is more of it. A text whose end the reader has already had from the log is left out: its owner
        has committed that end and is about to tell the feed.
        """
        if text.start_seq < self._ended_seq:
            return True
        length = min(length, text.length)  # of what another host tells, less may be here yet
        attempt, offset = self._held or (text.attempt, 0)
        if attempt != text.attempt:
            offset = 0
            out.append(
                Outgoing(EventType.RESTART, events.restart(text.message_id, text.attempt, "attempt replaced"), None)
            )
        self._held = (text.attempt, offset)
        if offset < length:
            upto = min(length, offset + TAKEN_CHARS)
            self._held = (text.attempt, upto)
            out.append(self._feed.output(text, self._seq, offset, upto))
            return upto == length
        return True


def _text_position(event: Event) -> tuple[int, int] | None:
    """How much of the running text came before `event`; None when nothing ran behind it."""
    return None if event.attempt is None else (event.attempt, event.text_offset or 0)


def settled(rows: Sequence[Event]) -> int:
    """How many rows of the log, from the first, have word in the log that what ran at them has ended."""
    return max((index + 1 for index, row in enumerate(rows) if row.begins_anew), default=0)


class Feeds:
    """The feeds of one process, by conversation. A feed lives while somebody holds it: its actor, or a reader."""

    def __init__(self, clock_ms: Callable[[], int], timers: Timers) -> None:
        """`timers` run as long as anybody waits."""
        self._clock_ms = clock_ms
        self._line = Line(timers)
        self._feeds: dict[ConversationRef, tuple[Feed, int]] = {}

    def hold(self, ref: ConversationRef) -> Feed:
        feed, holders = self._feeds.get(ref) or (Feed(self._clock_ms, self._line), 0)
        self._feeds[ref] = (feed, holders + 1)
        return feed

    def let_go(self, ref: ConversationRef) -> None:
        feed, holders = self._feeds[ref]
        if holders == 1:
            del self._feeds[ref]
        else:
            self._feeds[ref] = (feed, holders - 1)

    @contextmanager
    def reading(self, ref: ConversationRef) -> Iterator[Feed]:
        feed = self.hold(ref)
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                feed.forget_items()
            self.let_go(ref)

    def readers(self, ref: ConversationRef) -> int:
        held = self._feeds.get(ref)
        return held[0].readers if held else 0

    def wake_all(self) -> None:
        """Have every reader of this process look again."""
        for feed, _ in self._feeds.values():
            feed.wake()

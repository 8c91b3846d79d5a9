"""One reader of one conversation: what it lacks from the event log, then the live view, as chunks of bytes.

Pull model: `next_chunk` is called when the connection has room for more, so a slow reader holds one chunk and what one
`take` gave, and nothing queues up behind it. No task, no nursery, nothing to clean up.

Where truth is: the log has every durable event; the feed is a hint with the text in between. So the feed is attached
before the log is read to its end, whatever the feed cannot give is read from the log again, and the log is polled at
a slow beat in case a hint was lost. A store that is away only makes the stream wait, with pings; past its patience
the connection is broken off, never ended cleanly, since a clean end would read as a finished reply.

Must not know HTTP, tenants, or how a connection is written.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from edge import metrics, sse
from edge.deliveries import Deliveries
from edge.settings import EdgeSettings
from edge.sse import Encoding
from lobu_actors.contract import events
from lobu_actors.contract.events import TERMINAL_EVENTS, Cursor, EventType
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES
from lobu_actors.gateway.feed import Behind, Feed, FeedReader, Outgoing, settled
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import ConversationStore
from lobu_actors.store.records import Conversation, Event, Turn

FRAME_CHARS = 16 << 10  # of text in one output frame: at most 96 KiB when every character is escaped
TRIMMED = "older than what is kept"
UNKNOWN = "unknown cursor"
_FIRST_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 5.0
_LIVELY_SECONDS = 30.0  # after the last sign of life, how long the quicker poll goes on


class StreamBroken(Exception):
    """The stream cannot go on truthfully; the connection must be cut without a clean end."""


class Subscription:
    """Not shared: one caller, one `next_chunk` at a time."""

    def __init__(
        self,
        conversation: Conversation,
        store: ConversationStore,
        feed: Feed,
        settings: EdgeSettings,
        *,
        start: Cursor | None,
        turn: Turn | None = None,
        draining: Callable[[], bool] = lambda: False,
        encoding: Encoding = sse.ENCODING,
        deliveries: Deliveries | None = None,
    ) -> None:
        """Follow `turn` to its terminal event, or else the conversation until it is closed.

        `conversation` and `turn` were read in this request. `start` None: at `turn`'s beginning, else at the log's.
        """
        self._conversation = conversation
        self._ref = conversation.ref
        self._store = store
        self._feed = feed
        self._settings = settings
        self._draining = draining
        self._encoding = encoding
        self._deliveries = deliveries
        # Who comes to a server that drains already has nowhere else to go yet, and would come again at once.
        self._reconnect_ms = settings.drain_again_ms if draining() else settings.drain_reconnect_ms
        self._turn = turn
        self._from_beginning = start is None and turn is None
        # What had ended may have done so before the cursor that was asked for; then there is no more to say.
        self._turn_had_ended = turn is not None and turn.status in TERMINAL_TURN_STATUSES
        self._look_back = self._turn_had_ended and start is not None
        if start is None:
            start = Cursor(turn.first_seq if turn is not None else 0)
        self._start = start
        self._reader = FeedReader(feed, start)
        self._pending: list[Outgoing] = []  # a page of the log, or what the feed gave at once
        self._left_over = b""  # encoded, and too much for the last chunk
        self._greeted = False
        self.drained = False  # it ended because the server is on its way down
        self._done = False
        self._located = start.seq == 0  # the start's own row was looked at
        self._reading = True  # the log has to be read before the feed is heard
        now = trio.current_time()
        self._next_ping = now + settings.ping_seconds
        self._heard_at = now
        self._read_at = now
        self._backoff = 0.0
        self._retry_at = now
        self._away_since: float | None = None
        self._reader.attach()

    async def next_chunk(self) -> bytes | None:
        """The next bytes to send, at most about `stream_buffer_bytes`; None once the stream has ended cleanly.

        Returns at least every `ping_seconds` plus one read of the store. Raises StreamBroken.
        """
        if not self._greeted:
            self._greeted = True
            hello = self._encoding.first(self._ref.conversation_id, self._feed.clock_ms(), self._settings.retry_ms)
            return self._sent(hello, trio.current_time())
        while True:
            now = trio.current_time()
            if self._pending or self._left_over:
                if chunk := self._encode_pending():
                    return self._sent(chunk, now)
                continue
            if self._done or self._encoding.enough():
                return None
            if now >= self._next_ping:
                return self._sent(self._encoding.ping, now)
            if self._reading and not self._draining():
                if now < self._feed.expected_until:
                    await self._wait(self._feed.expected_until)  # what runs elsewhere is about to be told
                elif now >= self._retry_at:
                    await self._read_log()
                else:
                    await self._wait(self._retry_at)
                continue
            self._take(now)
            if self._draining():
                self._emit(Outgoing(EventType.DRAIN, events.drain(self._reconnect_ms), None))
                self.drained = not self._done
                self._done = True
            if not self._pending and not self._done and not self._reading:
                await self._wait_for_news(now)

    # --- the live view

    def _take(self, now: float) -> None:
        if self._reading:
            return
        try:
            taken = self._reader.take()
        except Behind:
            metrics.DROPPED_ITEMS.inc(self._reader.missed)
            self._read_again("behind")
            return
        if taken:
            self._heard_at = now
        for outgoing in taken:
            self._emit(outgoing)

    async def _wait_for_news(self, now: float) -> None:
        lively = self._turn is not None or now - self._heard_at < _LIVELY_SECONDS
        beat = self._settings.poll_seconds if lively else self._settings.idle_poll_seconds
        if self._feed.unheard:
            beat = min(beat, self._settings.unheard_poll_seconds if lively else self._settings.poll_seconds)
        feed, read_at = self._feed, self._read_at
        if feed.polled_from <= self._reader.seq:
            read_at = max(read_at, feed.polled_at)
        if now < read_at + beat:
            await self._wait(read_at + beat)
        elif feed.polling:
            await self._wait(now + beat)
        else:
            await self._poll()

    async def _wait(self, until: float) -> None:
        await self._feed.waiting.wait(min(until, self._next_ping))

    # --- the event log

    async def _poll(self) -> None:
        """Is there an event that nobody told of? One reader asks for all; what it finds, the others hear as a hint.

        While the store is away the live view just goes on.
        """
        feed, seq = self._feed, self._reader.seq
        rows: list[Event] = []
        feed.polling = True
        try:
            with trio.move_on_after(self._settings.read_seconds):
                rows = await self._store.read_events(self._ref, seq + 1, limit=1)
        except StoreUnavailable:
            rows = []
        finally:
            feed.polling = False
        self._read_at = now = trio.current_time()
        feed.polled_from, feed.polled_at = seq, now
        self._take(now)  # what was told meanwhile, with the text before it, which no log has
        if rows and self._reader.seq == seq and not self._reading:
            self._read_again("poll")
            feed.know(rows[0].seq)

    def _read_again(self, reason: str) -> None:
        metrics.STREAM_REREADS.labels(reason).inc()
        self._reader.attach()
        self._reading = True

    async def _read_log(self) -> None:
        """One page of the log; whatever the store does, the caller's loop goes on or StreamBroken is raised."""
        limit = self._settings.replay_page_events
        first = self._reader.seq + 1 if self._located else self._start.seq
        try:
            with trio.fail_after(self._settings.read_seconds):
                if self._look_back and await self._ended_before_start():
                    self._done = True
                    return
                rows = await self._store.read_events(self._ref, first, limit=limit)
                text_start = await self._find_text_start(rows)
        except (StoreUnavailable, trio.TooSlowError):
            self._store_is_away()
            return
        self._look_back = False
        self._away_since, self._backoff = None, 0.0
        self._read_at = trio.current_time()
        complete = len(rows) < limit
        if not self._located:
            rows = self._locate(rows, text_start)
            if not self._located:  # a gap: read from the log's beginning
                self._located = True
                return
        over = settled(rows)
        if not complete:
            rows = rows[:over] or rows  # of the others the next page says whether their text can still come
        for index, row in enumerate(rows):
            self._replay(row, over=index < over)
        if complete and not self._done:
            self._reached_end_of_log()

    async def _find_text_start(self, rows: list[Event]) -> int:
        """Before which event all text is over, for a reader that resumes at the first row."""
        if self._located or not rows or rows[0].seq != self._start.seq:
            return 0
        return rows[0].seq if rows[0].begins_anew else await self._store.find_text_start(self._ref, rows[0].seq)

    def _locate(self, rows: list[Event], text_start: int) -> list[Event]:
        """Find the start's own row; without it there is a gap, and everything that is kept follows."""
        seq = self._start.seq
        if rows and rows[0].seq == seq:
            self._reader.resume_behind(rows[0], text_start)
            self._located = True
            return rows[1:]
        if rows[0].seq == seq + 1 if rows else seq == self._conversation.last_seq:
            self._located = True  # what it had was trimmed away since, and it lacks nothing of what came after
            return rows
        if rows:
            self._located = True
            first, reason = rows[0].seq, TRIMMED
        else:
            self._from_beginning = True
            first, reason = 1, UNKNOWN
        self._reader = FeedReader(self._feed, Cursor(first - 1))
        self._emit(Outgoing(EventType.GAP, events.gap(seq, first, reason), None))
        return rows

    def _replay(self, row: Event, *, over: bool) -> None:
        if row.seq > self._reader.seq + 1 and not self._from_beginning:
            self._emit(Outgoing(EventType.GAP, events.gap(self._reader.seq, row.seq, TRIMMED), None))
        self._from_beginning = False
        for outgoing in self._reader.replay(row, over=over):
            self._emit(outgoing)

    async def _ended_before_start(self) -> bool:
        """Is the followed message's terminal event among what the reader's cursor says that it has?"""
        turn, limit = self._turn, self._settings.replay_page_events
        seq = turn.first_seq if turn is not None else 0
        while turn is not None and seq < self._start.seq:
            rows = await self._store.read_events(self._ref, seq + 1, limit=limit)
            for row in rows:
                if row.type in TERMINAL_EVENTS and row.data.get("messageId") == turn.message_id:
                    return row.seq <= self._start.seq
            if len(rows) < limit:
                return False
            seq = rows[-1].seq
        return False

    def _store_is_away(self) -> None:
        now = trio.current_time()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > self._settings.store_patience_seconds:
            raise StreamBroken("the store was away for too long")
        self._backoff = min(max(self._backoff * 2, _FIRST_BACKOFF_SECONDS), _MAX_BACKOFF_SECONDS)
        self._retry_at = now + self._backoff

    def _reached_end_of_log(self) -> None:
        """Go over to the feed, unless nothing can follow: in a closed conversation, or of a turn that had ended."""
        self._reading = False
        if self._turn_had_ended:
            self._done = True
        if self._conversation.closed and self._reader.seq <= self._conversation.last_seq:
            self._done = True

    # --- what goes out

    def _emit(self, outgoing: Outgoing) -> None:
        """Queue an event, unless the stream has ended with an earlier one."""
        if self._done:
            return
        if sse.is_long(outgoing, FRAME_CHARS):
            self._pending.extend(sse.split_output(outgoing, FRAME_CHARS))
        else:
            self._pending.append(outgoing)
        if outgoing.type in TERMINAL_EVENTS:
            if self._deliveries is not None:
                self._deliveries.note(self._ref, outgoing.data, self._feed.clock_ms())
            self._done = self._turn is not None and outgoing.data.get("messageId") == self._turn.message_id
        elif outgoing.type is EventType.CLOSED and outgoing.cursor is not None:
            # An older `closed` was followed by a new opening.
            self._done = outgoing.cursor.seq > self._conversation.last_seq

    def _encode_pending(self) -> bytes:
        limit = self._settings.stream_buffer_bytes
        if len(self._pending) == 1 and not self._left_over:
            return self._encode(self._pending.pop(0))
        chunk, self._left_over = bytearray(self._left_over), b""
        while self._pending and len(chunk) < limit:
            encoded = self._encode(self._pending.pop(0))
            if chunk and len(chunk) + len(encoded) > limit:
                self._left_over = encoded
                break
            chunk += encoded
        return bytes(chunk)

    def _encode(self, outgoing: Outgoing) -> bytes:
        encoding, known = self._encoding, self._feed.encoded
        if not encoding.alike:
            return encoding.event(outgoing)
        if known is None or known[0] is not outgoing or known[1] is not encoding:
            known = self._feed.encoded = (outgoing, encoding, encoding.event(outgoing))
        return known[2]

    def _sent(self, chunk: bytes, now: float) -> bytes:
        # A ping is owed only when nothing else was sent for so long.
        self._next_ping = now + self._settings.ping_seconds
        metrics.STREAM_BYTES.inc(len(chunk))
        return chunk

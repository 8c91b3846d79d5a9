"""What a reader holds: how far it is, and the running text of each message, put together exactly. Pure.

A resumed stream may repeat, overlap, jump or start a text over. Durable events are told apart by their sequence number,
output by (message, attempt, offset): a repeat is dropped, an overlap is cut, a jump is noted (`whole` is False until
the terminal event brings the text), a newer attempt begins with `restart`, also when the server's own was missed.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from lobu_actors.contract.events import ERROR_ALIAS, TERMINAL_EVENTS, Cursor, EventType, parse_cursor

Data = dict[str, Any]

# Texts of messages whose terminal event never came past, oldest out first.
MAX_TEXTS = 1000

TERMINAL_NAMES = frozenset(event.value for event in TERMINAL_EVENTS)


class ClientEvent(msgspec.Struct, frozen=True):
    """One event, each exactly once. `type` is a name of `contract.events.EventType`; unknown ones are passed on.

    `content` of `output` is exactly the new text. `id` is what to resume from, None where there is nothing to.
    """

    type: str
    data: Data
    id: str | None = None

    @property
    def message_id(self) -> str | None:
        value = self.data.get("messageId")
        return value if isinstance(value, str) else None

    @property
    def content(self) -> str:
        """New text of `output`, text of `ephemeral`, else empty."""
        value = self.data.get("content")
        return value if isinstance(value, str) else ""

    @property
    def final_text(self) -> str:
        """The whole reply, of `complete` and (as far as it came) of `cancelled`."""
        value = self.data.get("finalText")
        return value if isinstance(value, str) else ""

    @property
    def terminal(self) -> bool:
        return self.type in TERMINAL_NAMES


class _Text:
    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.parts: list[str] = []
        self.length = 0
        self.whole = True


class Transcript:
    """A reader's state; it outlives its connections. Feed it every event in the order of arrival."""

    def __init__(self, since: str | None = None) -> None:
        """`since`: the id that the reader already has. Raises ValueError when it is none."""
        self.last_id = since
        self._seq = -1 if since is None else parse_cursor(since).seq
        self._texts: dict[str, _Text] = {}

    def text(self, message_id: str) -> str:
        """The running text of a message as far as it is known; empty behind its terminal event."""
        held = self._texts.get(message_id)
        return "" if held is None else "".join(held.parts)

    def whole(self, message_id: str) -> bool:
        """False when a part of the running text is missing; the terminal event brings all of it."""
        held = self._texts.get(message_id)
        return held is None or held.whole

    def accept(self, type: str, data: Data, id: str | None) -> list[ClientEvent]:
        """The events to show: none for a repeat. Raises ValueError for an id that is none of this API."""
        if type == ERROR_ALIAS:
            return []
        cursor = None if id is None else parse_cursor(id)
        if type == EventType.OUTPUT:
            return self._output(data, id, cursor)
        if type == EventType.GAP:
            # The server starts over with all that it keeps; whatever we held of running texts may not fit to it.
            self._seq = -1
            for held in self._texts.values():
                held.whole = False
        if cursor is not None and cursor.attempt is None:
            if cursor.seq <= self._seq:
                return []
            self._seq = cursor.seq
            self.last_id = id
        event = ClientEvent(type, data, id)
        if type == EventType.RESTART and event.message_id is not None:
            attempt = data.get("attempt")
            self._start_over(event.message_id, attempt if isinstance(attempt, int) else 0)
        elif event.terminal:
            self._forget(event)
        return [event]

    def _output(self, data: Data, id: str | None, cursor: Cursor | None) -> list[ClientEvent]:
        event = ClientEvent(EventType.OUTPUT.value, data, id)
        message_id, content = event.message_id, event.content
        if cursor is None or cursor.attempt is None or cursor.offset is None or message_id is None:
            raise ValueError("an output event lacks its place (id) or its messageId")
        events: list[ClientEvent] = []
        held = self._texts.get(message_id)
        if held is None:
            held = self._start_over(message_id, cursor.attempt)
        elif cursor.attempt < held.attempt:
            return []
        elif cursor.attempt > held.attempt:
            if held.length:
                reason = {"messageId": message_id, "attempt": cursor.attempt, "reason": "attempt replaced"}
                events.append(ClientEvent(EventType.RESTART.value, reason))
            held = self._start_over(message_id, cursor.attempt)
        start = cursor.offset - len(content)
        if cursor.offset <= held.length:
            return events
        if start > held.length:
            held.whole = False
        elif start < held.length:
            content = content[held.length - start :]
            event = replace(event, data={**data, "content": content})
        held.parts.append(content)
        held.length = cursor.offset
        self.last_id = id
        return [*events, event]

    def _start_over(self, message_id: str, attempt: int) -> _Text:
        held = self._texts[message_id] = _Text(attempt)
        while len(self._texts) > MAX_TEXTS:
            del self._texts[next(iter(self._texts))]
        return held

    def _forget(self, event: ClientEvent) -> None:
        processed = event.data.get("processedMessageIds")
        ids = [event.message_id, *(processed if isinstance(processed, list) else [])]
        for message_id in ids:
            if isinstance(message_id, str):
                self._texts.pop(message_id, None)

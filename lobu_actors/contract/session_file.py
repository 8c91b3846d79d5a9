"""The one parser of session files: JSON lines as the pi coding agent (version 3) and our own workers write them.

Owns what a line means: which entries there are, how they hang together, what of them is a message. Pure; bytes in,
values out; never raises, whatever the bytes are: a line that is no JSON object is skipped and counted, and what stands
behind the last LF is not there yet. Must not know where a file lies or who asks.

Entries form a tree by `id` and `parentId`; the conversation is the branch that ends in the last entry. A parent stands
before its child, so a branch cannot run in a circle; an entry whose parent is unknown, or that names none (version 1),
follows the entry before it: a damaged link must not hide the messages behind it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lobu_actors.contract.text import storable

MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_ENTRIES = 500_000  # what is held of each is small, but a hostile file consists of entries
_MAX_NAME = 200
_MAX_NUMBER = 1 << 63
_MAX_USAGE_FIELDS = 32

Json = dict[str, Any]
_Node = tuple[int, "SessionMessage | None"]  # index of the parent or -1, and the message that the entry is


@dataclass(frozen=True, slots=True)
class SessionMessage:
    """One message. `offset` is where its line begins: it grows along a branch, and never changes as the file grows."""

    offset: int
    id: str
    role: str
    content: str  # its text parts, joined
    timestamp: int | None = None  # milliseconds since 1970
    model: str | None = None
    provider: str | None = None
    stop_reason: str | None = None
    usage: Json | None = None  # numbers, and one level of tables of numbers

    def to_json(self) -> Json:
        wire: Json = {"id": self.id, "role": self.role, "content": self.content, "timestamp": self.timestamp}
        further = {
            "model": self.model, "provider": self.provider, "stopReason": self.stop_reason, "usage": self.usage,
        }  # fmt: skip
        return wire | {name: value for name, value in further.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ParsedSession:
    messages: tuple[SessionMessage, ...] = ()  # of the branch that ends in the last entry, oldest first
    entries: int = 0  # JSON objects in the file, on whatever branch
    skipped_lines: int = 0  # no JSON object, too long, or one entry too many
    whole_bytes: int = 0  # up to and with the last LF
    torn_bytes: int = 0  # behind it


@dataclass(slots=True)
class SessionParser:
    """Takes a file in pieces of any size; holds one unfinished line, and of every entry what `finish` needs."""

    max_line_bytes: int = MAX_LINE_BYTES
    max_entries: int = MAX_ENTRIES
    _nodes: list[_Node] = field(default_factory=list)
    _index_of: dict[str, int] = field(default_factory=dict)
    _entries: int = 0
    _skipped: int = 0
    _line: bytearray = field(default_factory=bytearray)
    _line_start: int = 0
    _line_length: int = 0  # more than is held of it once it is too long

    def feed(self, data: bytes) -> None:
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data, start, end)
            self._end_line()
            start = end + 1
        self._hold(data, start, len(data))

    def finish(self) -> ParsedSession:
        """What stands in the lines that ended so far."""
        branch: list[SessionMessage] = []
        index = len(self._nodes) - 1
        while index >= 0:
            index, message = self._nodes[index]
            if message is not None:
                branch.append(message)
        branch.reverse()
        return ParsedSession(tuple(branch), self._entries, self._skipped, self._line_start, self._line_length)

    def _hold(self, data: bytes, start: int, end: int) -> None:
        self._line_length += end - start
        if self._line_length <= self.max_line_bytes:
            self._line += memoryview(data)[start:end]
        else:
            self._line.clear()

    def _end_line(self) -> None:
        entry = _entry(bytes(self._line)) if self._line_length <= self.max_line_bytes else None
        if entry is None:
            self._skipped += bool(self._line_length)
        elif self._entries >= self.max_entries:
            self._skipped += 1
        else:
            self._entries += 1
            self._add(entry)
        self._line_start += self._line_length + 1
        self._line_length = 0
        self._line.clear()

    def _add(self, entry: Json) -> None:
        if entry.get("type") == "session":
            return  # the header: its id names the session, and is no entry's parent
        parent = len(self._nodes) - 1
        if "parentId" in entry and entry["parentId"] is None:
            parent = -1
        elif isinstance(entry.get("parentId"), str):
            parent = self._index_of.get(entry["parentId"], parent)
        identifier = entry.get("id")
        self._nodes.append((parent, _message(entry, self._line_start)))
        if isinstance(identifier, str):
            self._index_of[identifier] = len(self._nodes) - 1


def parse_session(pieces: bytes | Iterable[bytes]) -> ParsedSession:
    """A whole file, at once or in pieces."""
    parser = SessionParser()
    for piece in (pieces,) if isinstance(pieces, bytes) else pieces:
        parser.feed(piece)
    return parser.finish()


def whole_length(data: bytes) -> int:
    """How much of a session file may be kept: all up to and with the last LF. What is behind it is a torn line."""
    return data.rfind(b"\n") + 1


def usage_totals(messages: Iterable[SessionMessage]) -> Json:
    """The sum of every number that stands at the top of the messages' `usage`; empty when none has any."""
    totals: Json = {}
    for message in messages:
        for name, value in (message.usage or {}).items():
            if isinstance(value, int | float):
                totals[name] = totals.get(name, 0) + value
    return totals


def _entry(line: bytes) -> Json | None:
    if not line:
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _message(entry: Json, offset: int) -> SessionMessage | None:
    message = entry.get("message")
    if entry.get("type") != "message" or not isinstance(message, dict):
        return None
    role, identifier = message.get("role"), entry.get("id")
    if not isinstance(role, str) or not role:
        return None
    return SessionMessage(
        offset=offset,
        id=storable(identifier[:_MAX_NAME]) if isinstance(identifier, str) and identifier else f"at-{offset}",
        role=storable(role[:_MAX_NAME]),
        content=storable(text_of(message.get("content"))),
        timestamp=_milliseconds(message.get("timestamp"), entry.get("timestamp")),
        model=_name(message.get("model")),
        provider=_name(message.get("provider")),
        stop_reason=_name(message.get("stopReason")),
        usage=_numbers(message.get("usage"), deeper=True),
    )


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which the text ones count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
    return "".join(part for part in parts if isinstance(part, str))


def _name(value: Any) -> str | None:
    return storable(value[:_MAX_NAME]) if isinstance(value, str) and value else None


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def _numbers(value: Any, *, deeper: bool) -> Json | None:
    if not isinstance(value, dict):
        return None
    found: Json = {}
    for name, item in list(value.items())[:_MAX_USAGE_FIELDS]:
        kept = item if _is_number(item) else _numbers(item, deeper=False) if deeper else None
        if kept is not None:
            found[storable(name[:_MAX_NAME])] = kept
    return found or None


def _milliseconds(*values: Any) -> int | None:
    """The first that is a time: milliseconds, or an ISO 8601 text (UTC unless it says otherwise)."""
    for value in values:
        if _is_number(value):
            return int(value) if 0 <= value < _MAX_NUMBER else None
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
                return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
            except (ValueError, OverflowError):
                continue
    return None

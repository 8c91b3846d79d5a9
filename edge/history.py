"""What was said in a conversation's present session: found, parsed, cut into pages. Knows no HTTP.

The session file on its owner's disk is newer than the snapshot while a run goes on, and the same once it completed:
both are read by the one parser, which does not look behind the last LF.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import attrs
import trio

from lobu_actors.contract.session_file import ParsedSession, SessionMessage, parse_session, usage_totals
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.store.protocol import ConversationStore
from lobu_actors.store.records import Conversation

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_PARSED_HERE_BYTES = 128 * 1024  # more would hold up everybody else
_CURSOR = re.compile(r"(\d{1,10})\.(\d{1,18})\Z")

Json = dict[str, Any]


class BadCursor(ValueError):
    """It was never a cursor of ours, or is one of a session that was ended since. The message says which."""


@attrs.frozen
class HistoryCursor:
    """Behind which message a page begins: by generation, and by where in the file its line stands."""

    generation: int
    offset: int

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(f"{self.generation}.{self.offset}".encode()).decode().rstrip("=")


def parse_history_cursor(text: str) -> HistoryCursor:
    """Raises BadCursor."""
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        plain = ""
    match = _CURSOR.match(plain)
    if match is None:
        raise BadCursor("`cursor` is not one that this address answered.")
    return HistoryCursor(int(match[1]), int(match[2]))


async def read_session(store: ConversationStore, gateway: Gateway, conversation: Conversation) -> ParsedSession:
    """The present session; an empty one when nothing was stored yet. Raises SnapshotCorrupt, StoreUnavailable."""
    data = await gateway.session_bytes(conversation.ref)
    if data is None:
        data = await store.read_snapshot(conversation.ref)
    if data is None:
        return ParsedSession()
    if len(data) <= _PARSED_HERE_BYTES:
        return parse_session(data)
    return await trio.to_thread.run_sync(parse_session, data)


def page(session: ParsedSession, generation: int, cursor: HistoryCursor | None, limit: int) -> Json:
    """At most `limit` messages behind the cursor, oldest first, and the cursor to go on with, then or later.

    Raises BadCursor.
    """
    if cursor is not None and cursor.generation != generation:
        raise BadCursor("`cursor` belongs to a session that was ended since; begin without one.")
    behind = -1 if cursor is None else cursor.offset
    rest = [message for message in session.messages if message.offset > behind]
    shown = rest[:limit]
    last = HistoryCursor(generation, shown[-1].offset) if shown else cursor
    return {
        "messages": [message.to_json() for message in shown],
        "nextCursor": None if last is None else str(last),
        "hasMore": len(rest) > len(shown),
    }


def stats(session: ParsedSession, generation: int) -> Json:
    roles: dict[str, int] = {}
    for message in session.messages:
        roles[message.role] = roles.get(message.role, 0) + 1
    return {
        "generation": generation,
        "messages": len(session.messages),
        "messagesByRole": roles,
        "entries": session.entries,
        "skippedLines": session.skipped_lines,
        "bytes": session.whole_bytes,
        "usage": usage_totals(session.messages) or None,
        "firstTimestamp": _first_time(session.messages),
        "lastTimestamp": _first_time(session.messages[::-1]),
    }


def _first_time(messages: tuple[SessionMessage, ...]) -> int | None:
    return next((message.timestamp for message in messages if message.timestamp is not None), None)

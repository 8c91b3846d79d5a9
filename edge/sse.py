"""The bytes of the event stream. Pure: an event in, frames out; knows no connection and no feed.

The form follows what real readers survive: bare LF, no BOM, `id:` only together with data, one JSON object on one
line, and a comment as the only keep-alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from msgspec.structs import replace

from edge.wire import encode
from lobu_actors.contract import events
from lobu_actors.contract.events import ERROR_ALIAS, Cursor, Data, EventType
from lobu_actors.gateway.feed import Outgoing

CONTENT_TYPE = "text/event-stream; charset=utf-8"
# Of a response, beside its type.
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    # A pipelined second request would hide that the reader went away.
    "Connection": "close",
}
PING = b": ping\n\n"

# JSON leaves these as they are, but readers that split lines the Unicode way would break a frame at them.
_LINE_BREAKS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


def _payload(data: Data) -> bytes:
    payload = encode(data)
    if not payload.isascii():
        for raw, escaped in _LINE_BREAKS:
            payload = payload.replace(raw, escaped)
    return payload


def data_frame(data: Data) -> bytes:
    """One frame of data alone, for readers that know no event names."""
    return b"data: %b\n\n" % _payload(data)


def frame(event: str, data: Data, cursor: Cursor | None = None) -> bytes:
    """One frame; with `id:` when a reader can resume from it."""
    payload = _payload(data)
    if cursor is None:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), payload)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(cursor).encode(), event.encode(), payload)


def first_frame(agent_id: str, timestamp_ms: int, retry_ms: int) -> bytes:
    """`retry:` and `connected` in one frame: a frame without data breaks readers."""
    return b"retry: %d\n" % retry_ms + frame(EventType.CONNECTED.value, events.connected(agent_id, timestamp_ms))


def encode_event(outgoing: Outgoing) -> bytes:
    """The frames of one event: two for a failed turn, which older readers know by another name."""
    sent = frame(outgoing.type, outgoing.data, outgoing.cursor)
    if outgoing.type is EventType.AGENT_ERROR:
        sent += frame(ERROR_ALIAS, outgoing.data, outgoing.cursor)
    return sent


def _never() -> bool:
    return False


class Encoding(msgspec.Struct, frozen=True):
    """How a subscription's events become bytes: its greeting (conversation, time, retry), its keep-alive, an event.

    It may keep a state: each is asked for once, in order. An event may have no bytes at all. `alike`: it keeps none, so
    what it made of an event for one reader is what it makes for every other. `enough`: with what it was given it is
    complete, and the subscription ends.
    """

    first: Callable[[str, int, int], bytes]
    ping: bytes
    event: Callable[[Outgoing], bytes]
    alike: bool = False
    enough: Callable[[], bool] = _never


ENCODING = Encoding(first_frame, PING, encode_event, alike=True)


def is_long(outgoing: Outgoing, max_chars: int) -> bool:
    return outgoing.type is EventType.OUTPUT and len(outgoing.data.get("content") or "") > max_chars


def split_output(outgoing: Outgoing, max_chars: int) -> Iterator[Outgoing]:
    """A long `output` as several, each with the cursor of its own end; anything else as it is."""
    content = outgoing.data.get("content")
    cursor = outgoing.cursor
    if (
        outgoing.type is not EventType.OUTPUT
        or not isinstance(content, str)
        or len(content) <= max_chars
        or cursor is None
        or cursor.offset is None
    ):
        yield outgoing
        return
    start = cursor.offset - len(content)
    for low in range(0, len(content), max_chars):
        piece = content[low : low + max_chars]
        at = replace(outgoing, data=outgoing.data | {"content": piece})
        yield replace(at, cursor=Cursor(cursor.seq, cursor.attempt, start + low + len(piece)))

"""The bytes of a response that is written past Hypercorn. Knows no connection and no route."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache

import msgspec

from edge.errors import Refusal
from edge.wire import JSON_HEADERS, Json, encode

RawHeaders = list[tuple[bytes, bytes]]
_CLOSE = (b"connection", b"close")


class PlainResponse(msgspec.Struct, frozen=True):
    """One whole response."""

    status: int
    headers: RawHeaders
    content: bytes = b""

    @property
    def ends_connection(self) -> bool:
        return _CLOSE in self.headers

    def encode(self, *, goes_on: bool) -> bytes:
        """As HTTP/1.1. `goes_on`: the connection does, behind it."""
        fields = list(self.headers)
        if self.status != 204:
            fields.append((b"content-length", b"%d" % len(self.content)))
        if not goes_on and not self.ends_connection:
            fields.append(_CLOSE)
        return _head(self.status, fields) + self.content


def stream_head(headers: RawHeaders, *, chunked: bool) -> bytes:
    """What precedes a body whose length nobody knows yet, in chunks or up to the connection's end."""
    return _head(200, [*headers, (b"transfer-encoding", b"chunked")] if chunked else headers)


def chunk(data: bytes) -> bytes:
    """`data` is not empty: that would read as LAST_CHUNK."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def raw_headers(fields: Mapping[str, str]) -> RawHeaders:
    return [(name.lower().encode(), value.encode()) for name, value in fields.items()]


_JSON_HEADERS = raw_headers(JSON_HEADERS)


def plain_json(status: int, body: Json, headers: Mapping[str, str] | None = None) -> PlainResponse:
    return PlainResponse(status, [*_JSON_HEADERS, *raw_headers(headers or {})], encode(body))


def plain_refusal(refusal: Refusal) -> PlainResponse:
    return plain_json(refusal.status, refusal.body(), refusal.headers)


def last_refusal(refusal: Refusal) -> PlainResponse:
    """With all its headers but the date. The connection ends behind it."""
    response = plain_refusal(refusal)
    length = (b"content-length", b"%d" % len(response.content))
    return PlainResponse(response.status, [*response.headers, length, _CLOSE], response.content)


def _head(status: int, fields: RawHeaders) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"HTTP/1.1 %d \r\n%bdate: %b\r\n\r\n" % (status, lines, _date(int(time.time())))


@lru_cache(maxsize=1)
def _date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()

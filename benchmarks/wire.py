"""HTTP/1.1 and event streams on bare asyncio sockets: no more work for each byte than a client must do.

The load generator's side of the connection. Knows framing, not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import attrs

ANSWER_SECONDS = 60.0


class Answer:
    """An answer's head, then its body without the framing."""

    def __init__(self) -> None:
        self.status = 0
        self.ended = False
        self._buffer = b""
        self._chunked = False
        self._left = 0  # of the body, or of the chunk with its line end; -1: until the connection ends

    def feed(self, data: bytes) -> bytes:
        """What of `data` is body."""
        self._buffer += data
        if not self.status and not self._head():
            return b""
        if self._chunked:
            return self._chunks()
        body, self._buffer = self._buffer, b""
        if self._left >= 0:
            self._left -= len(body)
            self.ended = self._left <= 0
        return body

    def _head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        self._buffer = rest
        first, *lines = head.split(b"\r\n")
        self.status = int(first.split(b" ")[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._chunked = b"chunked" in fields.get(b"transfer-encoding", b"")
        self._left = 0 if self._chunked else int(fields.get(b"content-length", b"-1"))
        self.ended = self._left == 0 and not self._chunked
        return True

    def _chunks(self) -> bytes:
        body = b""
        while True:
            if self._left == 0:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    return body
                size = int(line.split(b";")[0], 16)
                if size == 0:
                    self.ended = rest.startswith(b"\r\n")
                    return body
                self._buffer, self._left = rest, size + 2
            piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            body += piece[: max(self._left - 2, 0)]
            self._left -= len(piece)
            if self._left or not self._buffer:
                return body


@attrs.frozen
class Place:
    """Where the server is, and who asks."""

    url: str
    key: str

    async def connect(self, protocol: asyncio.Protocol, receive_buffer: int | None = None) -> None:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "127.0.0.1", parts.port or (443 if secure else 80)
        loop = asyncio.get_running_loop()
        [(family, kind, number, _, address), *_] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        bare = socket.socket(family, kind, number)
        bare.setblocking(False)
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await loop.sock_connect(bare, address)
            context = ssl.create_default_context() if secure else None
            await loop.create_connection(
                lambda: protocol, sock=bare, ssl=context, server_hostname=host if secure else None
            )
        except BaseException:
            bare.close()
            raise

    def request(self, method: str, path: str, token: str, body: bytes = b"", headers: str = "") -> bytes:
        parts = urlsplit(self.url)
        return (
            f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
            f"authorization: Bearer {token}\r\n{headers}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body


class Caller(asyncio.Protocol):
    """One keep-alive connection; requests wait for the one before."""

    def __init__(self, place: Place, token: str) -> None:
        self.token = token
        self._place = place
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[bytes, asyncio.Future[tuple[int, bytes]]]] = deque()
        self._current: asyncio.Future[tuple[int, bytes]] | None = None
        self._answer = Answer()
        self._body = b""

    @classmethod
    async def open(cls, place: Place, token: str) -> Caller:
        caller = cls(place, token)
        await place.connect(caller)
        return caller

    def post(self, path: str, body: dict[str, Any]) -> asyncio.Future[tuple[int, bytes]]:
        """Sent at once when nothing else is under way."""
        future: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._place.request("POST", path, self.token, json.dumps(body).encode()), future))
        self._next()
        return future

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, data = await self.post(path, body)
        if status not in (200, 201):
            raise RuntimeError(f"POST {path} was answered with {status}: {data[:300].decode(errors='replace')}")
        answer: dict[str, Any] = json.loads(data)
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        if self._current is None and self._waiting and self._transport is not None:
            data, self._current = self._waiting.popleft()
            self._answer, self._body = Answer(), b""
            self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._body += self._answer.feed(data)
        if self._answer.ended and self._current is not None:
            future, self._current = self._current, None
            if not future.done():
                future.set_result((self._answer.status, self._body))
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        waiting = [future for _, future in self._waiting] + ([self._current] if self._current else [])
        for future in waiting:
            if not future.done():
                future.set_exception(exc or ConnectionError("the server closed the connection"))
        self._waiting.clear()
        self._current = None


OnFrame = Callable[[bytes, float], None]


class Reader(asyncio.Protocol):
    """One event stream. `on_frame` is called with each frame that has data, and its time of arrival.

    `slow_seconds`: how long it rests after each piece, with as small a buffer as there may be.
    """

    def __init__(self, on_frame: OnFrame, slow_seconds: float = 0.0) -> None:
        self.bytes = 0
        self.ended = False
        self._on_frame = on_frame
        self._slow = slow_seconds
        self._answer = Answer()
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    async def open(self, place: Place, path: str, token: str, headers: str = "") -> None:
        await place.connect(self, 4096 if self._slow else None)
        assert self._transport is not None
        self._transport.write(place.request("GET", path, token, headers=headers))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        arrived = time.perf_counter()
        self.bytes += len(data)
        self._buffer += self._answer.feed(data)
        if self._answer.status not in (0, 200):
            raise RuntimeError(f"the stream was refused with {self._answer.status}: {self._buffer[:300]!r}")
        *frames, self._buffer = self._buffer.split(b"\n\n")
        for frame in frames:
            if b"data: " in frame:
                self._on_frame(frame, arrived)
        if self._slow and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._slow, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True

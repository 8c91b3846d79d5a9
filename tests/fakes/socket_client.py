"""A conversation's WebSocket, read with trio-websocket: what came, by event and by reply."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from tests.fakes.http_server import Frame, Running

SECONDS = 10.0


class Socket:
    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        self.replies: dict[str | None, tuple[int, dict[str, Any]]] = {}

    async def call(self, name: str, ref: str | None = None, **fields: Any) -> tuple[int, dict[str, Any]]:
        """Make a call and wait for its reply: status and body."""
        ref = ref or f"c{len(self.replies)}"
        await self.send_text(json.dumps({"call": name, "ref": ref, **fields}))
        return await self.reply(ref)

    async def send_text(self, text: str) -> None:
        await self.connection.send_message(text)

    async def reply(self, ref: str | None) -> tuple[int, dict[str, Any]]:
        with trio.fail_after(SECONDS):
            while ref not in self.replies:
                await self._take()
        return self.replies[ref]

    async def until(self, event: str, times: int = 1) -> Frame:
        """The event of that name, the last of so many."""
        with trio.fail_after(SECONDS):
            while sum(frame.event == event for frame in self.frames) < times:
                await self._take()
        return [frame for frame in self.frames if frame.event == event][times - 1]

    async def to_end(self) -> tuple[int, str | None]:
        """The close code and reason."""
        with trio.fail_after(SECONDS), suppress(ConnectionClosed):
            while True:
                await self._take()
        closed = self.connection.closed
        assert closed is not None
        return closed.code, closed.reason

    async def _take(self) -> None:
        message = json.loads(await self.connection.get_message())
        if "reply" in message:
            assert set(message) == {"reply", "status", "body"}
            self.replies[message["reply"]] = message["status"], message["body"]
        else:
            assert set(message) - {"id"} == {"event", "data"}
            self.frames.append(Frame(message["event"], message["data"], message.get("id")))


@asynccontextmanager
async def opened(server: Running, path: str, *, key: str | None = None, **headers: str) -> AsyncIterator[Socket]:
    """`key` empty: no Bearer credential. Raises ConnectionRejected."""
    sent = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if key != "":
        sent.append((b"authorization", f"Bearer {key or server.world.admin_key}".encode()))
    host = f"127.0.0.1:{server.port}"
    # The stream is closed here: the library leaves it open when the other side closes first.
    async with await server.connect() as stream:
        try:
            async with trio.open_nursery() as nursery:
                connection = await wrap_client_stream(
                    nursery, stream, host, path, extra_headers=sent, max_message_size=16 << 20
                )
                yield Socket(connection)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            rejected, rest = group.split(ConnectionRejected)
            if rejected is None or rest is not None:
                raise
            raise rejected.exceptions[0] from None

"""A WebSocket on a connection: Hypercorn's, with the bounds that it leaves out. Knows no route.

What is different from Hypercorn's own:

- a message is bounded in bytes before it is held; whoever goes on sending behind the refusal is dropped unread, and cut
  after `linger_seconds` (Hypercorn holds what comes on, without a bound);
- no compression: a small frame could unfold to a thousand times its size before any bound is looked at;
- what is no WebSocket protocol gets its close code (1002, 1007) before the connection ends;
- a handshake that is refused ends with its connection, and says so (Hypercorn leaves some open, and an app that waits);
- a peer that answers no ping for `silence_seconds` is gone, though its kernel still takes what we send;
- the pinging ends with the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from edge.errors import unreadable
from edge.plain_response import last_refusal

_EXTENSIONS = b"sec-websocket-extensions"


class SocketLimits(msgspec.Struct, frozen=True):
    """`message_bytes`: of one message, by the path of the socket. Pings follow Hypercorn's interval."""

    message_bytes: Callable[[str], int]
    silence_seconds: float
    linger_seconds: float


class EdgeConfig(Config):
    sockets: SocketLimits


class _ByteBuffer(WebsocketBuffer):
    """Counts bytes, and looks before it holds."""

    def extend(self, event: Message[Any]) -> None:
        chars = len(event.data)
        size = chars if isinstance(event.data, (bytes, bytearray)) else len(event.data.encode())
        if self.length + size > self.max_length:
            raise FrameTooLargeError
        super().extend(event)
        self.length += size - chars


class Socket(WSStream):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert isinstance(self.config, EdgeConfig)
        self._limits = self.config.sockets
        self._heard_at = trio.current_time()
        self._gone = trio.Event()
        self._refused = False  # we closed it for what it sent; what comes on is dropped

    async def handle(self, event: Event) -> None:
        if isinstance(event, Request):
            kept = [(name, value) for name, value in event.headers if name.lower() != _EXTENSIONS]
            event = replace(event, headers=kept)
            path = event.raw_path.partition(b"?")[0].decode("latin1")
            self.buffer = _ByteBuffer(self._limits.message_bytes(path))
        elif isinstance(event, (Body, Data)):
            self._heard_at = trio.current_time()
        elif isinstance(event, StreamClosed):
            self._gone.set()
        was_closed = self.closed
        await super().handle(event)
        if self.closed and not was_closed and not isinstance(event, StreamClosed):
            await self._end_refused()

    async def _send_error_response(self, status_code: int) -> None:
        response = last_refusal(unreadable(status_code))
        await self.send(Response(stream_id=self.stream_id, status_code=response.status, headers=response.headers))
        await self.send(Body(stream_id=self.stream_id, data=response.content))
        await self.send(EndBody(stream_id=self.stream_id))

    async def _end_refused(self) -> None:
        """Of a refused handshake Hypercorn tells neither the connection nor the app, if that runs already."""
        if self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value})
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_rejection(self, message: Any) -> None:
        if self.state is ASGIWebsocketState.HANDSHAKE:
            self.response = {**self.response, "headers": [*self.response["headers"], (b"connection", b"close")]}
        await super()._send_rejection(message)

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._take(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                elif self.connection.state is ConnectionState.OPEN:  # what came is no WebSocket protocol
                    await self._send_wsproto_event(CloseConnection(code=event.code, reason=event.reason))
                await self.send(StreamClosed(stream_id=self.stream_id))
                return

    async def _take(self, event: Message[Any]) -> None:
        if self._refused:
            return
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            self._refused = True
            self.buffer.clear()
            reason = f"A message may have {self.buffer.max_length} bytes."
            await self._send_wsproto_event(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG, reason=reason))
            self.task_group.spawn(self._linger)
            return
        if event.message_finished and self.app_put is not None:
            message = self.buffer.to_message()
            self.buffer.clear()
            await self.app_put(message)

    async def _linger(self) -> None:
        with trio.move_on_after(self._limits.linger_seconds):
            await self._gone.wait()
            return
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_pings(self) -> None:
        interval = self.config.websocket_ping_interval
        assert interval is not None
        while True:
            with trio.move_on_after(interval):
                await self._gone.wait()
                return
            if trio.current_time() - self._heard_at > self._limits.silence_seconds:
                await self.send(StreamClosed(stream_id=self.stream_id))
                return
            await self._send_wsproto_event(Ping())

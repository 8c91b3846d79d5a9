"""HTTP/1.1 and WebSockets on a connection: Hypercorn's protocol, with the bounds that it leaves out. Knows no route.

What is different from Hypercorn's own:

- a message is bounded in bytes before it is held; whoever goes on sending behind the refusal is dropped unread, and cut
  after `linger_seconds` (Hypercorn holds what comes on, without a bound);
- no compression: a small frame could unfold to a thousand times its size before any bound is looked at;
- what is no WebSocket protocol gets its close code (1002, 1007) before the connection ends;
- a peer that answers no ping for `silence_seconds` is gone, though its kernel still takes what we send;
- the pinging ends with the connection;
- nearly all of the traffic passes h11 by: a message that comes in one piece while h11 is between two requests is read
  and answered without it; answers to other messages and pieces of event streams are written without it: its state is
  no other behind the latter, and begins anew behind the former;
- no HTTP/2 without TLS, by whatever way it is asked for: see ADR 6.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

import h11
import msgspec
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as WireEvent
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Data, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from edge.direct import Direct, Exchange

_EXTENSIONS = b"sec-websocket-extensions"


class SocketLimits(msgspec.Struct, frozen=True):
    """`message_bytes`: of one message, by the path of the socket. Pings follow Hypercorn's interval."""

    message_bytes: Callable[[str], int]
    silence_seconds: float
    linger_seconds: float


class EdgeConfig(Config):
    sockets: SocketLimits
    direct: Direct


class EdgeProtocol(ProtocolWrapper):
    """Hypercorn's, whose HTTP/1.1 upgrades to sockets of ours."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if isinstance(self.protocol, H11Protocol):
            self.protocol = _Http1(
                self.app,
                self.config,
                self.context,
                self.task_group,
                self.state,
                self.ssl,
                self.client,
                self.server,
                self.send,
            )


class _Http1(H11Protocol):
    _chunked = False  # the response that is under way has a body of unknown length

    async def handle(self, event: WireEvent) -> None:
        if isinstance(event, RawData) and self._is_between_requests():
            assert isinstance(self.config, EdgeConfig)
            exchange = self.config.direct.whole(event.data, self.config.h11_max_incomplete_size, self._respond_to_whole)
            if exchange is not None:
                self.keep_alive_requests += 1
                await self.context.mark_request()
                await self.send(Updated(idle=False))
                await exchange.answer()
                return
        await super().handle(event)

    def _is_between_requests(self) -> bool:
        connection = self.connection
        if not isinstance(connection, h11.Connection) or connection.their_state is not h11.IDLE:
            return False
        return connection.our_state is h11.IDLE and connection.trailing_data == (b"", False)

    async def stream_send(self, event: Event) -> None:
        if self._chunked and isinstance(event, Body):
            if event.data:  # else it would read as the end
                await self.send(RawData(b"%x\r\n%b\r\n" % (len(event.data), event.data)))
            return
        await super().stream_send(event)
        self._chunked = isinstance(event, Response) and self._has_no_length(event)

    def _has_no_length(self, response: Response) -> bool:
        """As h11 has just decided, which does not tell."""
        connection = self.connection
        if not isinstance(connection, h11.Connection) or connection.their_http_version != b"1.1":
            return False
        return not any(name.lower() == b"content-length" for name, _ in response.headers)

    async def _check_protocol(self, event: h11.Request) -> None:
        """A wish to go over to HTTP/2 is not heard; the request is answered as it stands."""

    async def _create_stream(self, request: h11.Request) -> None:
        if not request.http_version.startswith(b"1."):
            await self._send_error_response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            await self.send(Closed())
            return
        if request.method != b"GET" or not _wants_socket(request):
            await self._create_request(request)
            return
        stream = _Socket(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.stream = stream
        self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method="GET",
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        await self.context.mark_request()

    async def _create_request(self, request: h11.Request) -> None:
        assert isinstance(self.config, EdgeConfig)
        direct, head = self.config.direct, (request.method, request.target, list(request.headers))
        exchange = direct.take(*head, self._respond) or direct.stream(*head, self.stream_send, self._spawn)
        if exchange is None:
            await super()._create_stream(request)
            return
        self.stream = cast(HTTPStream, exchange)
        self.keep_alive_requests += 1
        await self.context.mark_request()

    def _spawn(self, answer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.task_group.spawn(answer)

    async def _handle_events(self) -> None:
        await super()._handle_events()
        stream: object = self.stream
        if isinstance(stream, Exchange) and stream.claim():
            self.task_group.spawn(stream.answer)

    async def _respond(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        """A whole response, in one piece; nothing when what came was no HTTP, which has been answered."""
        if self.connection.our_state is not h11.SEND_RESPONSE:
            return
        headers += self.config.response_headers("h11")
        if self.connection.their_state is h11.DONE and not self._is_last():
            await self.send(RawData(_response(status, headers, content)))
            await self._begin_anew()
            return
        if self._has_had_enough():
            headers.append((b"connection", b"close"))
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage())
        await self.send(RawData(b"".join(self.connection.send(event) or b"" for event in events)))
        await self._maybe_recycle()

    async def _respond_to_whole(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        """As `_respond`, to a request that h11 has not seen."""
        headers += self.config.response_headers("h11")
        ends = self._is_last()
        if ends:
            headers.append((b"connection", b"close"))
        await self.send(RawData(_response(status, headers, content)))
        await self.send(Closed() if ends else Updated(idle=True))

    def _is_last(self) -> bool:
        return self._has_had_enough() or self.context.terminated.is_set()

    def _has_had_enough(self) -> bool:
        return self.keep_alive_requests >= self.config.keep_alive_max_requests

    async def _begin_anew(self) -> None:
        """The next request on this connection, which may have come already."""
        rest, is_at_end = self.connection.trailing_data
        await self._close_stream()
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
        if rest:
            self.connection.receive_data(rest)
        if is_at_end:
            self.connection.receive_data(b"")
        await self.can_read.set()
        await self.send(Updated(idle=True))


def _response(status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, lines, content)


def _wants_socket(request: h11.Request) -> bool:
    headers = {name: value.lower() for name, value in request.headers}
    tokens = [token.strip() for token in headers.get(b"connection", b"").split(b",")]
    return headers.get(b"upgrade") == b"websocket" and b"upgrade" in tokens


class _ByteBuffer(WebsocketBuffer):
    """Counts bytes, and looks before it holds."""

    def extend(self, event: Message[Any]) -> None:
        chars = len(event.data)
        size = chars if isinstance(event.data, (bytes, bytearray)) else len(event.data.encode())
        if self.length + size > self.max_length:
            raise FrameTooLargeError
        super().extend(event)
        self.length += size - chars


class _Socket(WSStream):
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
        await super().handle(event)

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

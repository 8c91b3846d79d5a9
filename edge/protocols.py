"""Hypercorn's protocols on a connection: all requests that are not answered there (`edge.http_connection`), and
WebSockets. Knows no route.

What is different from Hypercorn's own:

- a response's head waits for what comes next, which in Hypercorn follows at once, and goes out together with it;
- pieces of a body of unknown length are written without h11, whose state is no other behind them;
- a faulty peer costs its own connection only: whatever the socket says, the protocol hears `Closed` and reading ends;
- its WebSockets are ours (`edge.ws_stream`);
- what cannot be read as a request is refused as everything else is, with a body that says so;
- no HTTP/2 without TLS, by whatever way it is asked for: see ADR 6.
"""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import h11
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as WireEvent
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Event, Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr, wrap_app

from edge.application import Application
from edge.connection import Addresses, Connection, Gone
from edge.errors import unreadable
from edge.plain_response import chunk, last_refusal
from edge.settings import EdgeSettings
from edge.ws_stream import EdgeConfig, Socket, SocketLimits
from lobu_actors.contract import worker_link


class Protocols:
    """What those of one server's connections have in common. `ending`: as in `Connection`."""

    def __init__(self, app: Application, settings: EdgeSettings, ending: trio.Event) -> None:
        self._app = wrap_app(app, 0, "asgi")
        self._config = _config(settings)
        self._context = _Context(ending)

    def on(self, connection: Connection, addresses: Addresses, nursery: trio.Nursery) -> EdgeProtocol:
        """Its tasks are `nursery`'s."""
        client, server = (parse_socket_addr(connection.family, address) for address in addresses)
        parts = (self._app, self._config, self._context, _Tasks(nursery), ConnectionState({}), False, client, server)
        return EdgeProtocol(connection, *parts)


def _config(settings: EdgeSettings) -> EdgeConfig:
    config = EdgeConfig()
    config.accesslog = None
    config.errorlog = logging.getLogger("lobu.edge.connection")
    config.include_server_header = False
    config.keep_alive_max_requests = settings.keep_alive_max_requests
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.websocket_ping_interval = settings.ping_seconds
    config.sockets = SocketLimits(
        partial(_message_bytes, settings), settings.socket_silence_seconds, settings.linger_seconds
    )
    return config


def _message_bytes(settings: EdgeSettings, path: str) -> int:
    """How long a message may be on the WebSocket at that path."""
    return worker_link.MAX_MESSAGE_BYTES if path.endswith(worker_link.PATH) else settings.max_message_bytes


class _Ending(EventWrapper):
    def __init__(self, event: trio.Event) -> None:
        self._event = event


class _Context(WorkerContext):
    def __init__(self, ending: trio.Event) -> None:
        super().__init__(None)
        self.terminated = _Ending(ending)


class _Tasks(TaskGroup):
    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery


class EdgeProtocol(ProtocolWrapper):
    """Hypercorn's on one connection, whose HTTP/1.1 upgrades to sockets of ours."""

    def __init__(self, connection: Connection, *parts: Any) -> None:
        parts = (*parts, self._hear)
        super().__init__(*parts)
        self._http = _Http1(*parts)
        self.protocol = self._http
        self._connection = connection
        self._head = b""  # of a response, until what follows it is there

    async def receive(self, data: bytes) -> None:
        """What has come; nothing: nothing more will."""
        await self.handle(RawData(data))

    async def end(self) -> None:
        """Nobody hears any more."""
        await self.handle(Closed())

    def is_between_requests(self) -> bool:
        return self._http.is_between_requests()

    async def _hear(self, event: WireEvent) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            await self._send(b"")
            self._connection.close()
            await self._ended()
        elif isinstance(event, Updated):
            self._connection.clock(idle=event.idle)

    async def _send(self, data: bytes) -> None:
        """A connection that takes no more is closed to the protocol, without an error."""
        if not self._head and _is_head(data):
            self._head = data
            return
        data, self._head = self._head + data, b""
        if not data:
            return
        try:
            await self._connection.send(data)
        except Gone:
            await self._ended()

    async def _ended(self) -> None:
        """Hypercorn keeps a request that came too early for the end of the one before, which may not come any more."""
        await self.handle(Closed())
        self._connection.end_reading()


def _is_head(data: bytes) -> bool:
    """Of an HTTP/1.1 response that is not an interim one, by itself. What merely looks like it waits for its end."""
    return data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1")


class _Http1(H11Protocol):
    _chunked = False  # the response that is under way has a body of unknown length
    _bodiless = False  # it answers HEAD

    def is_between_requests(self) -> bool:
        connection = self.connection
        if not isinstance(connection, h11.Connection) or connection.their_state is not h11.IDLE:
            return False
        return connection.our_state is h11.IDLE and connection.trailing_data == (b"", False)

    async def stream_send(self, event: Event) -> None:
        if self._chunked and isinstance(event, Body):
            if event.data:
                await self.send(RawData(chunk(event.data)))
            return
        await super().stream_send(event)
        self._chunked = isinstance(event, Response) and self._has_no_length(event)

    def _has_no_length(self, response: Response) -> bool:
        """As h11 has just decided, which does not tell."""
        connection = self.connection
        if not isinstance(connection, h11.Connection) or connection.their_http_version != b"1.1":
            return False
        return not any(name.lower() == b"content-length" for name, _ in response.headers)

    async def _send_error_response(self, status_code: int) -> None:
        response = last_refusal(unreadable(status_code))
        headers = [*response.headers, *self.config.response_headers("h11")]
        await self._send_h11_event(h11.Response(status_code=response.status, headers=headers))
        if not self._bodiless:
            await self._send_h11_event(h11.Data(data=response.content))
        await self._send_h11_event(h11.EndOfMessage())

    async def _check_protocol(self, event: h11.Request) -> None:
        """A wish to go over to HTTP/2 is not heard; the request is answered as it stands."""

    async def _create_stream(self, request: h11.Request) -> None:
        if (refused := self._refused(request)) is not None:
            self._bodiless = request.method == b"HEAD"
            await self._send_error_response(refused)
            await self.send(Closed())
            return
        if request.method != b"GET" or not _wants_socket(request):
            await super()._create_stream(request)
            return
        stream = Socket(
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

    def _refused(self, request: h11.Request) -> HTTPStatus | None:
        """What h11 lets pass, and what is wrong with it."""
        if not request.http_version.startswith(b"1."):
            return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        names = {name for name, _ in request.headers}
        if b"content-length" in names and b"transfer-encoding" in names:
            return HTTPStatus.BAD_REQUEST  # whoever is in front may have gone by the other one
        # h11 looks at the size of what is not whole only.
        size = len(request.target) + sum([len(name) + len(value) for name, value in request.headers])
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if size > self.config.h11_max_incomplete_size else None


def _wants_socket(request: h11.Request) -> bool:
    headers = {name: value.lower() for name, value in request.headers}
    tokens = [token.strip() for token in headers.get(b"connection", b"").split(b",")]
    return headers.get(b"upgrade") == b"websocket" and b"upgrade" in tokens

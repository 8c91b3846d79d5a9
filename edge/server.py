"""Serves the app: our own listening sockets, accept loop and connections around Hypercorn's protocols.

Why not Hypercorn's own `serve`: it sends with an unbounded shield, so one reader that has stalled holds a shutdown up
until the kernel gives the reader up, and it knows no way to cut. Here every accepted socket is known, a fault in one
connection ends that connection only, and a stop is a short list of bounded steps:

1. the listeners close, streams say `drain` and end one after the other, idle connections close;
2. requests under way get `stop_grace_seconds`;
3. what is left is cut at its socket, which ends even a shielded send; then it is cancelled.

Uses of Hypercorn what is not its public interface (see `edge.connection` too): the dependency is pinned to a minor
version, and the integration tests drive every step of the above.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from functools import partial

import structlog
import trio
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from edge import metrics
from edge.application import Application
from edge.connection import Connection
from edge.direct import Direct
from edge.listening import bind, configure
from edge.settings import EdgeSettings
from edge.ws_stream import EdgeConfig, SocketLimits
from lobu_actors.contract import worker_link

_log = structlog.get_logger(__name__)

_LAST_SECONDS = 5.0  # for handlers to end once their connection is gone
_IDLE_LOOKS = 8  # in the time that a connection may be idle


async def serve(
    app: Application,
    settings: EdgeSettings,
    *,
    stopping: trio.Event,
    host: str = "127.0.0.1",
    port: int = 0,
    sockets: Sequence[socket.socket] | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping` is set, then stop in order and return. Cancelled, it stops at once.

    Reports the port through `task_status` once every address is answered. `sockets` are listening sockets to take over
    in place of `host` and `port`. Raises PortTaken, CannotListen, and what is in the way of the routes' modules.
    """
    if sockets is None:
        sockets = await bind(host, port, settings)
    for raw in sockets:
        configure(raw, settings)
    connections = _Connections(app, settings)
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(raw)) for raw in sockets]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.end_idle)
            async with trio.open_nursery() as handlers:
                accepting = partial(trio.serve_listeners, connections.handle, listeners, handler_nursery=handlers)
                try:
                    async with trio.open_nursery() as acceptors:
                        acceptors.start_soon(accepting)
                        await app.load()
                        task_status.started(sockets[0].getsockname()[1])
                        await stopping.wait()
                        acceptors.cancel_scope.cancel()
                    await connections.stop(listeners)
                    handlers.cancel_scope.deadline = trio.current_time() + _LAST_SECONDS
                finally:
                    connections.cut()  # when cancelled too: nothing else reaches a send that waits in a shield
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.socket.close()


class _Connections:
    """The open connections of one server."""

    def __init__(self, app: Application, settings: EdgeSettings) -> None:
        self._streams = app.services.streams
        self._settings = settings
        self._config = _hypercorn_config(settings)
        self._config.direct = Direct(lambda: app.services)
        self._context = WorkerContext(None)
        self._app = wrap_app(app, 0, "asgi")
        self._open: set[Connection] = set()
        self._all_gone = trio.Event()

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection, from its accept to its end. Its faults are logged and end here."""
        if len(self._open) >= self._settings.max_connections:
            stream.socket.close()
            return
        state = ConnectionState({})
        connection = Connection(
            self._app, self._config, self._context, state, stream, self._settings.stalled_reader_seconds
        )
        self._open.add(connection)
        metrics.CONNECTIONS_OPEN.inc()
        try:
            await connection.run()
        except Exception:
            _log.exception("connection failed")
        finally:
            stream.socket.close()
            self._open.discard(connection)
            metrics.CONNECTIONS_OPEN.dec()
            if not self._open:
                self._all_gone.set()

    async def stop(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Have everything end by itself; takes at most `drain_seconds` and `stop_grace_seconds`."""
        for listener in listeners:
            listener.socket.close()
        await self._streams.stop()
        await self._context.terminated.set()
        for connection in list(self._open):
            connection.end_if_idle()
        with trio.move_on_after(self._settings.stop_grace_seconds):
            while self._open:
                self._all_gone = trio.Event()
                await self._all_gone.wait()

    async def end_idle(self) -> None:
        """Again and again, those on which no request came for so long."""
        seconds = self._settings.keep_alive_seconds
        while True:
            await trio.sleep(seconds / _IDLE_LOOKS)
            before = trio.current_time() - seconds
            for connection in list(self._open):
                connection.end_if_idle(before)

    def cut(self) -> None:
        """End what is still open; afterwards no connection can hold its handler up."""
        if self._open:
            _log.warning("cutting connections that outlived the stop grace", connections=len(self._open))
            metrics.CONNECTIONS_CUT.inc(len(self._open))
        for connection in list(self._open):
            connection.cut()


def _hypercorn_config(settings: EdgeSettings) -> EdgeConfig:
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

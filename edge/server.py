"""Serves the app: our own listening sockets and accept loop, and the connections that are open.

Why not Hypercorn's own `serve`: it sends with an unbounded shield, so one reader that has stalled holds a shutdown up
until the kernel gives the reader up, and it knows no way to cut. Here every accepted socket is known, a fault in one
connection ends that connection only, and a stop is a short list of bounded steps:

1. the listeners close, streams say `drain` and end one after the other, idle connections close, but for those that were
   just made and whose first request is still on its way;
2. requests under way get `stop_grace_seconds`;
3. what is left is cut at its socket, which ends even a shielded send; then it is cancelled.

What is said on a connection is `edge.http_connection`'s. `edge.protocols` uses of Hypercorn what is not its public
interface: the dependency is pinned to a minor version, and the integration tests drive every step of the above.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from edge import metrics
from edge.application import Application
from edge.connection import Connection
from edge.direct import Direct
from edge.http_connection import HttpConnection, Shared
from edge.listening import bind, configure
from edge.settings import EdgeSettings

if TYPE_CHECKING:
    from edge.protocols import Protocols

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
    port = sockets[0].getsockname()[1]  # now: a server that is cancelled while it loads has closed them
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
                        task_status.started(port)
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


def most_connections(settings: EdgeSettings) -> int:
    """Strangers may hold that many. A quarter of what this process may have open is left to all else: a turn would fail
    for want of its files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = settings.max_connections
    return most if files == resource.RLIM_INFINITY else min(most, files * 3 // 4)


class _Connections:
    """The open connections of one server."""

    def __init__(self, app: Application, settings: EdgeSettings) -> None:
        self._app = app
        self._settings = settings
        self._most = most_connections(settings)
        self._ending = trio.Event()
        self._shared = Shared(Direct(lambda: app.services), settings, self._ending, self._loaded_protocols)
        self._protocols: Protocols | None = None
        self._open: set[Connection] = set()
        self._all_gone = trio.Event()

    async def _loaded_protocols(self) -> Protocols:
        await self._app.until_loaded()
        if self._protocols is None:
            from edge.protocols import Protocols

            self._protocols = Protocols(self._app, self._settings, self._ending)
        return self._protocols

    async def handle(self, stream: trio.SocketStream) -> None:
        """One connection, from its accept to its end. Its faults are logged and end here."""
        if len(self._open) >= self._most:
            stream.socket.close()
            return
        connection = Connection(stream, self._settings, self._ending)
        self._open.add(connection)
        metrics.CONNECTIONS_OPEN.inc()
        try:
            await HttpConnection(connection, self._shared).run()
        except Exception:
            _log.exception("connection failed")
        finally:
            connection.close()
            self._open.discard(connection)
            metrics.CONNECTIONS_OPEN.dec()
            if not self._open:
                self._all_gone.set()

    async def stop(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Have everything end by itself; takes at most `drain_seconds` and `stop_grace_seconds`."""
        for listener in listeners:
            listener.socket.close()
        await self._app.services.streams.stop()
        self._ending.set()
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

"""One accepted connection: Hypercorn's protocols on it (HTTP/1.1, WebSockets), with reading, writing and idle
clock of ours. Knows no route and no app.

Why not Hypercorn's `TCPServer`: half of what a small request costs was there, in a task for each idle clock, a lock and
a shield without a bound for each piece sent, and a packet each for a response's head, body and end. Here

- there is no idle clock: somebody looks at all connections now and then, and ends those that are idle for too long;
- a response's head waits for what comes next, which in Hypercorn follows at once, and goes out together with it;
- what the socket takes at once is sent without a wait; the rest under a shield, whose deadline moves on with each byte
  that the reader takes. A reader that takes nothing for so long is cut off.

A faulty peer costs its own connection only: whatever the socket says, the protocol hears `Closed`.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from contextlib import suppress

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from edge.ws_stream import EdgeConfig, EdgeProtocol

READ_BYTES = 64 * 1024
# A response that always finds room in its socket would otherwise keep the event loop to itself.
SENDS_PER_CHECKPOINT = 16
# SO_LINGER on, for 0 seconds: what the reader did not take is thrown away with the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """`run` is its whole life. `stalled_seconds` bounds how long a reader may take nothing of what is sent to it."""

    def __init__(
        self,
        app: AppWrapper,
        config: EdgeConfig,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SocketStream,
        stalled_seconds: float,
    ) -> None:
        self._app = app
        self._config = config
        self._context = context
        self._state = state
        self._stream = stream
        self._stalled_seconds = stalled_seconds
        self._reading = trio.CancelScope()
        self._idle_since = math.inf  # by trio's clock; while a request is under way it is not
        self._head = b""  # of a response, until what follows it is there
        self._sends = 0
        self._sending = trio.Lock()  # while what one has sent waits for the reader to take it
        self._protocol: EdgeProtocol

    async def run(self) -> None:
        """Until either side has closed it and its requests are over. Raises what the protocol or the app raises."""
        raw = self._stream.socket
        try:
            client, server = (parse_socket_addr(raw.family, name()) for name in (raw.getpeername, raw.getsockname))
            async with TaskGroup() as tasks:
                self._protocol = EdgeProtocol(
                    self._app, self._config, self._context, tasks, self._state, False, client, server, self._hear
                )
                await self._protocol.initiate()
                await self._read()
        except OSError:
            pass  # it went away as it was accepted
        finally:
            self._close()

    def end_if_idle(self, before: float = math.inf) -> None:
        """Close it if no request is under way on it, nor was after `before` (trio's clock)."""
        if self._idle_since < before:
            self._reading.cancel()

    def cut(self) -> None:
        """End it at once, even under a send that waits inside its shield."""
        try:
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._stream.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._stream.socket.close()  # it is gone already; whoever waits on it hears so now

    async def _read(self) -> None:
        with self._reading:
            self._clock(idle=True)
            try:
                while data := await self._receive():
                    await self._protocol.handle(RawData(data))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            else:
                await self._protocol.handle(RawData(b""))
        await self._protocol.handle(Closed())
        if self._reading.cancelled_caught:
            self._close()

    async def _receive(self) -> bytes:
        """Waits first: behind a response, nothing has come yet. Raises trio's errors of streams."""
        while True:
            descriptor = self._stream.socket.fileno()
            if descriptor < 0:
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    def _clock(self, *, idle: bool) -> None:
        self._idle_since = trio.current_time() if idle else math.inf
        if idle and self._context.terminated.is_set():
            self._reading.cancel()

    async def _hear(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            await self._send(b"")
            self._close()
            await self._protocol.handle(Closed())
        elif isinstance(event, Updated):
            self._clock(idle=event.idle)

    async def _send(self, data: bytes) -> None:
        """Send in the order of calls. A connection that takes no more is closed to the protocol, without an error."""
        if not self._head and _is_head(data):
            self._head = data
            return
        data, self._head = self._head + data, b""
        if not data:
            return
        try:
            if self._sending.locked():
                async with self._sending:
                    await self._send_slowly(data)
            elif rest := data[self._send_now(data) :]:
                self._sending.acquire_nowait()
                try:
                    await self._send_slowly(rest)
                finally:
                    self._sending.release()
        except (OSError, trio.ClosedResourceError):
            await self._protocol.handle(Closed())
            return
        self._sends += 1
        if self._sends % SENDS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()

    def _send_now(self, data: bytes) -> int:
        try:
            return os.write(self._stream.socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def _send_slowly(self, data: bytes) -> None:
        """Shielded: half a frame would spoil what is sent after it."""
        rest = memoryview(data)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._stalled_seconds) as scope:
            while rest:
                rest = rest[await self._stream.socket.send(rest) :]
                scope.deadline = trio.current_time() + self._stalled_seconds
        if rest:
            self.cut()
            raise BrokenPipeError("the reader takes nothing")

    def _close(self) -> None:
        with suppress(OSError):  # the other side was faster
            self._stream.socket.shutdown(socket.SHUT_WR)
        self._stream.socket.close()


def _is_head(data: bytes) -> bool:
    """Of an HTTP/1.1 response that is not an interim one, by itself. What merely looks like it waits for its end."""
    return data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1")

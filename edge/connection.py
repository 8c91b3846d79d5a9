"""One accepted connection's socket: reading, writing, idle clock. Knows no protocol.

Why not Hypercorn's `TCPServer`: half of what a small request costs was there, in a task for each idle clock, and a lock
and a shield without a bound for each piece sent. Here

- there is no idle clock: somebody looks at all connections now and then, and ends those that are idle for too long;
- what the socket takes at once is sent without a wait; the rest under a shield, whose deadline moves on with each byte
  that the reader takes. A reader that takes nothing for so long is cut off.
"""

from __future__ import annotations

import math
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import trio

from edge.settings import EdgeSettings

READ_BYTES = 64 * 1024
# A response that always finds room in its socket would otherwise keep the event loop to itself.
SENDS_PER_CHECKPOINT = 16
# SO_LINGER on, for 0 seconds: what the reader did not take is thrown away with the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


Addresses = tuple[tuple[Any, ...], tuple[Any, ...]]  # the client's and ours, as sockets have them


class Gone(Exception):
    """The other side has left, or the connection was cut."""


class Connection:
    """`ending`: the server is on its way down, and what is idle ends. Of `settings`, `stalled_reader_seconds` and
    `first_request_seconds` are used here."""

    def __init__(self, stream: trio.SocketStream, settings: EdgeSettings, ending: trio.Event) -> None:
        self._socket = stream.socket
        self._stalled_seconds = settings.stalled_reader_seconds
        self._first_seconds = settings.first_request_seconds
        self._first_until = trio.current_time() + self._first_seconds
        self._ending = ending
        self._reading: trio.CancelScope
        self._idle_since = math.inf  # by trio's clock; while a request is under way it is not
        self._sends = 0
        self._sending = trio.Lock()  # while what one has sent waits for the reader to take it

    def addresses(self) -> Addresses:
        """Raises Gone."""
        try:
            return self._socket.getpeername(), self._socket.getsockname()
        except OSError:
            raise Gone from None

    @property
    def family(self) -> int:
        return self._socket.family

    # --- idleness

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Left at once when the connection is over, or ended as idle; not inside another one."""
        with trio.CancelScope() as self._reading:
            yield

    def clock(self, *, idle: bool) -> None:
        """From now on no request is under way, or one is."""
        if not idle:
            self._idle_since, self._first_until = math.inf, 0.0
        else:
            self._idle_since = trio.current_time()
        if self._ending.is_set():
            self._reading.deadline = self._nothing_more_from() if idle else math.inf

    def end_if_idle(self, before: float = math.inf) -> None:
        """End it if no request is under way on it, nor was after `before` (trio's clock)."""
        if self._idle_since < before:
            self._reading.deadline = self._nothing_more_from() if self._ending.is_set() else -math.inf

    def _nothing_more_from(self) -> float:
        """When an idle connection ends, by trio's clock. A request that has come already, or is on its way on a
        connection that was made for it, is answered: its client would not know whether it was."""
        now = trio.current_time()
        return max(now + self._first_seconds if self._has_more() else now, self._first_until)

    def _has_more(self) -> bool:
        descriptor = self._socket.fileno()
        if descriptor < 0:
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def end_reading(self) -> None:
        """Of a connection that is over."""
        self._reading.cancel()

    # --- bytes

    async def receive(self) -> bytes:
        """Waits first: behind a response, nothing has come yet. Nothing: the other side sends no more. Raises Gone."""
        while True:
            try:
                descriptor = self._socket.fileno()
                if descriptor < 0:
                    raise Gone
                await trio.lowlevel.wait_readable(descriptor)
                # Asked for again: closed in between, its number may be another connection's by now.
                return os.read(self._socket.fileno(), READ_BYTES)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                raise Gone from None

    async def send(self, data: bytes) -> None:
        """Send in the order of calls. Raises Gone."""
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
            raise Gone from None
        self._sends += 1
        if self._sends % SENDS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()

    def _send_now(self, data: bytes) -> int:
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0

    async def _send_slowly(self, data: bytes) -> None:
        """Shielded: half a frame would spoil what is sent after it."""
        rest = memoryview(data)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._stalled_seconds) as scope:
            while rest:
                rest = rest[await self._socket.send(rest) :]
                scope.deadline = trio.current_time() + self._stalled_seconds
        if rest:
            self.cut()
            raise BrokenPipeError("the reader takes nothing")

    # --- its end

    def end_writing(self) -> None:
        """The other side hears that nothing more is sent."""
        with suppress(OSError):  # it was faster
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.end_writing()
        self._socket.close()

    def reset(self) -> None:
        """The other side hears of a fault, where an end would tell it that all was sent."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()

    def cut(self) -> None:
        """End it at once, even under a send that waits inside its shield."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._socket.close()  # it is gone already; whoever waits on it hears so now

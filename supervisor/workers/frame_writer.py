"""What a worker is sent: straight into its socket when there is room, else through a bounded buffer.

Owns that buffer. The direct send saves a task switch on the way of every turn.
"""

import socket

import trio


class BufferFull(Exception):
    """The worker does not read: what it has not taken is over the limit."""


class FrameWriter:
    """Writes bytes in order, held back until `open`; `flush` runs as a task while a rest waits for room."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self.closed = False  # the other end is: nothing written since then was or will be read

    def open(self, worker_socket: socket.socket) -> bool:
        """Let through what was held and what comes; True when a rest waits for `flush`."""
        self._socket = worker_socket
        if self._buffer:
            with memoryview(self._buffer) as view:
                sent = self._send(worker_socket, view)
            del self._buffer[:sent]
        return bool(self._buffer)

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes) -> bool:
        """Send or keep; True when a rest waits for `flush`. Never blocks. Raises BufferFull, and drops what it held."""
        if self._socket is not None and not self._buffer:
            data = data[self._send(self._socket, data) :]
        if not data:
            return False
        if len(self._buffer) + len(data) > self._limit:
            self._buffer.clear()
            raise BufferFull(f"it did not read, and {self._limit} bytes were kept for it")
        self._buffer += data
        return self._socket is not None

    async def flush(self) -> None:
        """Send until nothing is left. Ends early when the worker's end is closed: the reader tells of that."""
        while self._buffer and self._socket is not None:
            await trio.lowlevel.wait_writable(self._socket)
            with memoryview(self._buffer) as view:
                sent = self._send(self._socket, view[: 256 * 1024])
            del self._buffer[:sent]

    def _send(self, worker_socket: socket.socket, data: bytes | memoryview) -> int:
        try:
            return worker_socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.closed = True
            return len(data)


async def send_first(worker_socket: socket.socket, data: bytes) -> None:
    """Send all of `data` past a writer that still holds; the caller bounds the wait."""
    while data:
        try:
            data = data[worker_socket.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(worker_socket)
        except OSError:
            return  # its end is closed: the reader tells of that

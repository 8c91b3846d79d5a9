"""A TCP proxy whose connections can be cut, stalled, refused, slow: the network between two, in a test's hand."""

from __future__ import annotations

import math
import socket

import trio


class Proxy:
    """`run` listens on `port` until cancelled. Nothing passes while `down` (refused) or `stalled` (not read)."""

    def __init__(self, target: int, *, receive_buffer_bytes: int | None = None) -> None:
        """A small buffer has the one who sends learn soon how slow the way is."""
        self.target = target
        self._buffer = receive_buffer_bytes
        self.port = 0
        self.down = False
        self.bytes_per_second = math.inf
        self.latency_seconds = 0.0  # of what comes after silence
        self.accepted = 0
        self._open: set[trio.SocketStream] = set()
        self._flows = trio.Event()
        self._flows.set()

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        if self._buffer is not None:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer)
        self.port = listener.socket.getsockname()[1]
        task_status.started(self.port)
        await trio.serve_listeners(self._serve, [listener])

    def cut(self) -> None:
        """Close what is open, and what comes from now on, until `heal`."""
        self.down = True
        for stream in list(self._open):
            stream.socket.close()

    def stall(self) -> None:
        """Nothing passes any more, and nobody is told: a cable that was pulled."""
        self._flows = trio.Event()

    def heal(self) -> None:
        self.down = False
        self._flows.set()

    async def _serve(self, near: trio.SocketStream) -> None:
        if self.down:
            await near.aclose()
            return
        self.accepted += 1
        ends = {near}
        self._open |= ends  # before it has its other end, too, it can be cut
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.target)
            ends.add(far)
            self._open |= ends
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                nursery.start_soon(self._pump, far, near, nursery.cancel_scope)
        except OSError:
            pass  # nobody listens there
        finally:
            self._open -= ends
            for stream in ends:
                stream.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        heard_at = -math.inf
        try:
            while data := await source.receive_some(int(min(65536, max(1024, self.bytes_per_second / 100)))):
                await self._flows.wait()
                silence = trio.current_time() - heard_at
                lasts = self.latency_seconds if silence > self.latency_seconds else 0.0
                await trio.sleep(lasts + len(data) / self.bytes_per_second)
                heard_at = trio.current_time()
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()

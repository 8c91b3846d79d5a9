"""A worker's bytes as frames: one read of its socket becomes one batch.

Owns line splitting, decoding, and how many lines one worker may have read: what floods its socket finds it full, and
the others their turn in time. Knows nothing of what frames mean or of processes.
"""

import socket

import structlog
import trio

from lobu_actors.contract.frames import MAX_LINE_BYTES, Frame, FrameError, Unknown, decode_worker_frame

READ_BYTES = 16 * 1024  # so that one batch of the smallest frames holds nobody up for long
WAITING_READS = 256  # more than a socket holds: who writes faster than it is read must not be read for ever
LINES_PER_SECOND = 5000.0  # in the long run
LINES_AT_ONCE = 500

_log = structlog.get_logger()


class LineTooLong(FrameError):
    """A line over the limit; `complete` are the lines that were complete before it."""

    def __init__(self, limit: int, line: bytes, complete: list[bytes]) -> None:
        super().__init__(f"a line of more than {limit} bytes", line)
        self.complete = complete


class LineSplitter:
    """Cuts a stream at LF. Holds at most `limit` bytes and one chunk; lines are given without their LF."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises LineTooLong, after which the splitter is of no more use."""
        lines = data.split(b"\n")
        if self._parts and len(lines) > 1:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts, self._size = [], 0
        tail = lines.pop()
        if tail:
            self._parts.append(tail)
            self._size += len(tail)
        for index, line in enumerate(lines):
            if len(line) > self._limit:
                raise LineTooLong(self._limit, line, lines[:index])
        if self._size > self._limit:
            raise LineTooLong(self._limit, b"".join(self._parts), lines)
        return lines


class Pace:
    """A token bucket. All times are seconds of one clock."""

    def __init__(self, per_second: float = LINES_PER_SECOND, at_once: float = LINES_AT_ONCE) -> None:
        self._per_second = per_second
        self._at_once_seconds = at_once / per_second
        self._full_at = 0.0

    def take(self, number: int, now: float) -> None:
        self._full_at = max(self._full_at, now) + number / self._per_second

    @property
    def resumes_at(self) -> float:
        """When more may be taken."""
        return self._full_at - self._at_once_seconds


class EndOfFrames(Exception):
    """The worker's end of the socket is closed, and all that it wrote was read."""


class FrameReader:
    """Reads one worker's frames. Not for use by two tasks.

    `mid_line`: somebody has read from this socket before, maybe a part of a line; what cannot be read of the first line
    is then left out. The rest of a line is never a frame itself: its braces do not match.
    """

    def __init__(
        self, worker_socket: socket.socket, worker_id: str, max_line_bytes: int, *, mid_line: bool = False
    ) -> None:
        self._mid_line = mid_line
        self._socket = worker_socket
        self._worker_id = worker_id
        self._splitter = LineSplitter(max_line_bytes)
        self._fault: FrameError | None = None
        self._pace = Pace()

    async def read(self) -> tuple[Frame, ...]:
        """The frames of one read, never none; unknown ones are left out with a debug line.

        Raises FrameError at a broken line, once the frames before it were given, and EndOfFrames. Always a checkpoint.
        """
        while True:
            if self._fault is not None:
                raise self._fault
            if self._pace.resumes_at > trio.current_time():
                await trio.sleep_until(self._pace.resumes_at)
            # Waits even when there is something to read: a worker that never stops writing must let others run.
            await trio.lowlevel.wait_readable(self._socket)
            data = self._receive()
            if data is None:
                continue
            if not data:
                raise EndOfFrames
            frames = self._decode(data)
            self._pace.take(data.count(b"\n"), trio.current_time())
            if frames:
                return tuple(frames)

    def read_waiting(self) -> list[Frame]:
        """The frames that are there already. What is wrong among them is raised by the next `read`."""
        frames: list[Frame] = []
        for _ in range(WAITING_READS):
            if self._fault is not None:
                break
            try:
                data = self._socket.recv(READ_BYTES)
            except OSError:
                break
            if not data:
                break
            frames += self._decode(data)
        return frames

    def _receive(self) -> bytes | None:
        """None: there is nothing after all."""
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _decode(self, data: bytes) -> list[Frame]:
        try:
            lines = self._splitter.feed(data)
        except LineTooLong as error:
            lines, self._fault = error.complete, error
        frames: list[Frame] = []
        try:
            for line in lines:
                mid_line, self._mid_line = self._mid_line, False
                try:
                    frame = decode_worker_frame(line)
                except FrameError:
                    if not mid_line:
                        raise
                    _log.debug("worker.rest_of_line", worker_id=self._worker_id, bytes=len(line))
                    continue
                if isinstance(frame, Unknown):
                    _log.debug("worker.unknown_frame", worker_id=self._worker_id, type=frame.type)
                else:
                    frames.append(frame)
        except FrameError as error:
            self._fault = error
        return frames

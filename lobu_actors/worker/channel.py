"""The worker's end of its socket: JSON lines out under one lock, JSON lines in on one thread.

Owns the descriptor. Works on plain dicts, not on `lobu_actors.contract.frames`, whose classes cost more to load
than the rest of a worker together; a test holds the two vocabularies against each other.
"""

import json
import os
import select
import threading
from typing import Any

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 8 * 1024 * 1024
_READ_BYTES = 64 * 1024
_NONE = -1

Wire = dict[str, Any]
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Disconnected(Exception):
    """The supervisor's end is closed, or this is a fork of the worker, which has none."""


class Channel:
    """`send` from any thread; `receive` from one."""

    def __init__(self, descriptor: int) -> None:
        self.lock = threading.RLock()
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)  # what the worker starts must not hold its socket open
        os.set_blocking(descriptor, True)
        self._readable = select.poll()
        self._readable.register(descriptor, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)
        self._tail = b""

    def forget(self) -> None:
        """In a fork of the worker: it must not hold the socket open, and says nothing in the worker's name."""
        self.lock = threading.RLock()  # a thread that is not here may have held the other one
        os.close(self._descriptor)
        self._descriptor = _NONE

    def send(self, frame: Wire) -> None:
        """Send one frame, waiting while the supervisor is slow. Raises Disconnected, and ValueError if over 8 MiB."""
        line = (_encode(frame) + "\n").encode("ascii")
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a frame of {len(line)} bytes is over the protocol's limit of {MAX_LINE_BYTES}")
        with self.lock:
            self._write(line)

    def send_if_free(self, frame: Wire) -> bool:
        """Send a small frame unless somebody else is sending or the supervisor is slow. Raises Disconnected."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if not self._writable.poll(0):
                return False
            self._write((_encode(frame) + "\n").encode("ascii"))
            return True
        finally:
            self.lock.release()

    def receive(self, timeout_seconds: float) -> list[Wire]:
        """The frames of one read; none when nothing came in time. Raises Disconnected."""
        if not self._readable.poll(max(0.0, timeout_seconds * 1000)):
            return []
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except ConnectionError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        *lines, self._tail = (self._tail + data).split(b"\n")
        frames = [json.loads(line) for line in lines]
        return [frame for frame in frames if isinstance(frame, dict)]

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                raise Disconnected from error

"""What the bare parts of a path cost on this machine now: nothing here is ours, so nothing here can be made faster.

Each part is done by the plainest program that does it: a blocking socket, a prepared statement, a pipe to a process.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import psycopg

ECHO_PROGRAM = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
if s.family == socket.AF_INET:
    s, _ = s.accept()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := s.recv(65536):
    s.sendall(data)
"""
REQUEST = b"x" * 400
LINE = b"x" * 200 + b"\n"


def seconds_of(act: Callable[[], object], repeat: int) -> list[float]:
    taken = []
    for _ in range(repeat):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return taken


@contextmanager
def _echo(ours: socket.socket, theirs: socket.socket) -> Iterator[socket.socket]:
    process = subprocess.Popen([sys.executable, "-c", ECHO_PROGRAM, str(theirs.fileno())], pass_fds=(theirs.fileno(),))
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.wait()


def _round_trip(to: socket.socket, data: bytes) -> None:
    to.sendall(data)
    got = 0
    while got < len(data):
        got += len(to.recv(65536))


def loopback_request(repeat: int) -> list[float]:
    """A request and its answer over TCP loopback, to another process and back."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    ours = socket.socket()
    with _echo(ours, listener):
        ours.connect(address)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _round_trip(ours, REQUEST)
        return seconds_of(lambda: _round_trip(ours, REQUEST), repeat)


def process_hop(repeat: int) -> list[float]:
    """A line to another process over a socketpair and back."""
    ours, theirs = socket.socketpair()
    with _echo(ours, theirs):
        _round_trip(ours, LINE)
        return seconds_of(lambda: _round_trip(ours, LINE), repeat)


def commit(database_url: str, repeat: int) -> list[float]:
    """One durable insert of one row, on the very server that is measured."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bench_floor (id bigserial PRIMARY KEY, data text)")
        try:
            insert = "INSERT INTO bench_floor (data) VALUES (%s)"
            for _ in range(10):
                connection.execute(insert, ("x" * 200,), prepare=True)
            return seconds_of(lambda: connection.execute(insert, ("x" * 200,), prepare=True), repeat)
        finally:
            connection.execute("DROP TABLE bench_floor")


def pidfd_wake(repeat: int) -> list[float]:
    """SIGKILL to the moment at which a poll of the process's pidfd returns."""
    taken = []
    for _ in range(repeat):
        program = "import sys; print(flush=True); sys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        descriptor = os.pidfd_open(process.pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        begun = time.perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        poll.poll()
        taken.append(time.perf_counter() - begun)
        os.close(descriptor)
        process.communicate()
    return taken


def start_of(program: str, repeat: int) -> list[float]:
    """A Python process that imports what `program` says, from its start to its end."""
    return seconds_of(lambda: subprocess.run([sys.executable, "-c", program], check=True), repeat)


Parts = dict[str, Callable[[], list[float]]]


class Beside:
    """Measures the parts when it is entered and again when it is left, since machines change their mind.

    `medians()` is of both; what follows the measurement can use it only behind the `with`.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._taken: dict[str, list[float]] = {part: [] for part in parts}

    def __enter__(self) -> Beside:
        self._measure()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._measure()

    def _measure(self) -> None:
        for part, seconds in self._parts.items():
            self._taken[part] += seconds()

    def medians(self) -> dict[str, float]:
        return {part: median(taken) for part, taken in self._taken.items()}

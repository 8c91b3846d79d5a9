"""The supervisor is started again in the middle of a reply: how long the client hears nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import floors
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Latency, Result
from benchmarks.server import AGENTS, FORKED, LIMITS, Server, own_database, own_server

WHAT = "supervisor killed or drained, and started again at once: the gap in a reply at the client"
REPEAT, FEW = 10, 1
IMPORTS = "import supervisor.everything, edge.server"
CONNECT_SECONDS = 30.0
GRACE = "drain_grace_seconds = 0.5\n"


def _kill(server: Server) -> None:
    server.signal(signal.SIGKILL)
    server.wait()


def _drain(server: Server) -> None:
    server.signal(signal.SIGTERM)
    server.wait()


CAUSES: dict[str, Callable[[Server], None]] = {"killed": _kill, "drained": _drain}


def measure(bench: Bench) -> Result:
    bench.own_only("restart")
    repeat = bench.often(REPEAT, FEW)
    found = []
    for where, make in list(PLACES.items())[: 1 if bench.quick else None]:
        with make() as server:
            for name, cause in CAUSES.items():
                with floors.Beside(
                    {
                        "start with imports": lambda: floors.start_of(IMPORTS, 1 if bench.quick else 5),
                        "request": lambda: floors.loopback_request(bench.floors),
                    }
                ) as beside:
                    taken = Histogram()
                    for number in range(repeat):
                        bench.progress(f"restart: {name}, {where}, {number} of {repeat}")
                        taken.record(_gap(server, cause))
                parts = beside.medians()
                floor = {"start with imports": parts["start with imports"], "request": parts["request"]}
                found.append(Latency(f"{name}, {where}", taken, floor))
    return Result("restart", WHAT, {"repeat": repeat}, found)


def _gap(server: Server, cause: Callable[[Server], None]) -> float:
    """From the signal to the next piece of the reply. The client connects again as soon as somebody listens."""
    conversation = Conversation(server.port, server.key, f"restart-{time.time_ns()}", FORKED)
    try:
        conversation.send("stream 2000 5")
        conversation.wait_for("output")
        begun = time.perf_counter()
        cause(server)
        server.launch()
        _connect(conversation, server.port)
        gap = conversation.wait_for("output") - begun
        server.until_ready()
        return gap
    finally:
        conversation.close()


def _connect(conversation: Conversation, port: int) -> None:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            conversation.read_at(port)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


@contextmanager
def _elsewhere() -> Iterator[Server]:
    with own_database() as database, own_server(LIMITS + GRACE + AGENTS, database_url=database) as server:
        yield server


@contextmanager
def _embedded() -> Iterator[Server]:
    with own_server(LIMITS + GRACE + AGENTS) as server:
        yield server


PLACES = {"database elsewhere": _elsewhere, "its own database": _embedded}

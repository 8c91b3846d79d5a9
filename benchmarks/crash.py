"""SIGKILL of a worker amid its reply to `agent-error` at the client: of the only one, and of one of many."""

from __future__ import annotations

import os
import signal
import time

from benchmarks import floors
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Latency, Result
from benchmarks.server import EXECUTED, FORKED, Server, own_server

WHAT = "worker killed in the middle of its reply to agent-error at the client, also while many other turns run"
KILLS, FEW_KILLS = 100, 5
PIDFD_REPEAT = 20
RUNNING, FEW_RUNNING = 200, 10
PIECE_EVERY_MS = 1000.0  # of each turn that runs beside


def measure(bench: Bench) -> Result:
    bench.own_only("crash")
    kills, running = bench.often(KILLS, FEW_KILLS), FEW_RUNNING if bench.quick else RUNNING
    with own_server() as server:
        found = [_of_one(bench, server, agent, kills, f"kill to agent-error, {agent}") for agent in (FORKED, EXECUTED)]
        found.append(_among(bench, server, kills, running))
    return Result("crash", WHAT, {"kills": kills, "running": running, "piece every, ms": PIECE_EVERY_MS}, found)


def _among(bench: Bench, server: Server, kills: int, running: int) -> Latency:
    """While other turns run; their workers are not killed."""
    found: list[Latency] = []

    def look(said: str) -> None:
        if said == "running":
            found.append(_of_one(bench, server, FORKED, kills, f"kill to agent-error, {running} other turns running"))

    bench.progress(f"crash: {running} turns begin")
    told = generate(
        server.url, server.key, "running", look, agent=FORKED, conversations=running, delay_ms=PIECE_EVERY_MS
    )
    figures = {"pieces a second": told["pieces"] / told["wall"], "client CPU share": told["client_cpu"]}
    return Latency(found[0].name, found[0].histogram, found[0].floor, figures)


def _of_one(bench: Bench, server: Server, agent: str, kills: int, name: str) -> Latency:
    """The same conversation's worker again and again."""
    with floors.Beside(
        {
            "pidfd wake": lambda: floors.pidfd_wake(PIDFD_REPEAT),
            "commit": lambda: floors.commit(server.database_url, bench.floors),
            "request": lambda: floors.loopback_request(bench.floors),
        }
    ) as beside:
        conversation = Conversation(server.port, server.key, f"crash-{time.time_ns()}", agent)
        others = server.worker_pids()
        taken = Histogram()
        for number in range(kills):
            bench.progress(f"crash: {number} of {kills} kills ({name})")
            conversation.send("hello")  # a reply in between: otherwise this is a crash loop
            conversation.wait_for("complete")
            conversation.send("stream 100000 20")
            conversation.wait_for("output")
            [pid] = server.worker_pids() - others
            begun = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            taken.record(conversation.wait_for("agent-error") - begun)
        conversation.close()
    parts = beside.medians()
    floor = {"pidfd wake": parts["pidfd wake"], "commit": parts["commit"], "event": parts["request"] / 2}
    return Latency(name, taken, floor)

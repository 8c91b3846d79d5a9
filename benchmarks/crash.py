"""SIGKILL of the worker in the middle of a reply to `agent-error` at the client."""

from __future__ import annotations

import os
import signal
import time

from benchmarks import floors
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Latency, Result
from benchmarks.server import EXECUTED, FORKED, own_server

WHAT = "worker killed in the middle of its reply to agent-error at the client"
KILLS, FEW_KILLS = 100, 5
PIDFD_REPEAT = 20


def measure(bench: Bench) -> Result:
    bench.own_only("crash")
    kills = bench.often(KILLS, FEW_KILLS)
    found = []
    with own_server() as server:
        for agent in (FORKED, EXECUTED):
            with floors.Beside(
                {
                    "pidfd wake": lambda: floors.pidfd_wake(PIDFD_REPEAT),
                    "commit": lambda: floors.commit(server.database_url, bench.floors),
                    "request": lambda: floors.loopback_request(bench.floors),
                }
            ) as beside:
                conversation = Conversation(server.port, server.key, f"crash-{time.time_ns()}", agent)
                taken = Histogram()
                for number in range(kills):
                    bench.progress(f"crash: {number} of {kills} kills ({agent})")
                    conversation.send("hello")  # a reply in between: otherwise this is a crash loop
                    conversation.wait_for("complete")
                    before = server.worker_pids()
                    conversation.send("stream 100000 20")
                    conversation.wait_for("output")
                    [pid] = before & server.worker_pids()
                    begun = time.perf_counter()
                    os.kill(pid, signal.SIGKILL)
                    taken.record(conversation.wait_for("agent-error") - begun)
                conversation.close()
            parts = beside.medians()
            floor = {"pidfd wake": parts["pidfd wake"], "commit": parts["commit"], "event": parts["request"] / 2}
            found.append(Latency(f"kill to agent-error, {agent}", taken, floor))
    return Result("crash", WHAT, {"kills": kills}, found)

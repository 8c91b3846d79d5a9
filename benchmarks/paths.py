"""The measured paths, each from a client's socket: a message to its terminal event, a worker's death to its error."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from statistics import median

from benchmarks import floors
from benchmarks.http import Conversation
from benchmarks.results import Result
from benchmarks.server import Server

WARM_UP = 20
FLOOR_REPEAT = 300
KILL_FLOOR_REPEAT = 30
STEP = 100

Progress = Callable[[str], None]


def _medians(before: dict[str, list[float]], after: dict[str, list[float]]) -> dict[str, float]:
    """Of what was measured right before and right after, since machines change their mind."""
    return {part: median(before[part] + after[part]) for part in before}


def terminal(server: Server, turns: int, progress: Progress) -> Result:
    """A message to its terminal event: warm worker, one conversation, idle host."""

    def parts() -> dict[str, list[float]]:
        return {
            "request": floors.loopback_request(FLOOR_REPEAT),
            "commit": floors.commit(server.database_url(), FLOOR_REPEAT),
            "worker hop": floors.process_hop(FLOOR_REPEAT),
        }

    before = parts()
    conversation = Conversation(server.port, server.key, f"terminal-{time.time_ns()}")
    taken = []
    for number in range(WARM_UP + turns):
        begun = time.perf_counter()
        conversation.send("hello")
        taken.append(conversation.wait_for("complete", "agent-error", "cancelled") - begun)
        if number % STEP == 0:
            progress(f"terminal: {number} of {WARM_UP + turns} turns")
    conversation.close()
    found = _medians(before, parts())
    path = {
        "request": found["request"],
        "3 commits": 3 * found["commit"],
        "worker hop": found["worker hop"],
        "event to reader": found["request"] / 2,
    }
    return Result("terminal", "message to terminal event, warm worker", taken[WARM_UP:], path)


def crash(server: Server, kills: int, progress: Progress) -> Result:
    """SIGKILL of the worker in the middle of a reply to `agent-error` at the client."""

    def parts() -> dict[str, list[float]]:
        return {
            "kill to wait": floors.kill_to_wait(KILL_FLOOR_REPEAT),
            "commit": floors.commit(server.database_url(), FLOOR_REPEAT),
            "request": floors.loopback_request(FLOOR_REPEAT),
        }

    before = parts()
    others = set(server.worker_pids())
    conversation = Conversation(server.port, server.key, f"crash-{time.time_ns()}")
    taken = []
    for number in range(kills):
        conversation.send("hello")  # a reply in between: otherwise this is a crash loop, and is treated as one
        conversation.wait_for("complete")
        conversation.send("stream 100000 20")
        conversation.wait_for("output")
        [pid] = set(server.worker_pids()) - others
        begun = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        taken.append(conversation.wait_for("agent-error") - begun)
        if number % 10 == 0:
            progress(f"crash: {number} of {kills} kills")
    conversation.close()
    found = _medians(before, parts())
    path = {
        "kill to wait": found["kill to wait"],
        "commit": found["commit"],
        "event to reader": found["request"] / 2,
    }
    return Result("crash", "kill of the worker to agent-error at the client", taken, path)

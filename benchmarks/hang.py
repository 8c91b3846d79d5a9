"""Each clock of a turn: from the cause to the error's code at the client, beside the deadline itself."""

from __future__ import annotations

import time

import attrs

from benchmarks import floors
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import LIMITS, own_server

WHAT = "a turn that hangs: from the cause to each clock's error code at the client"
REPEAT, FEW = 10, 1
DEADLINE = 1.0  # seconds, of each clock


@attrs.frozen
class Clock:
    """`content` makes it run out; `since`: the event from whose arrival it runs, "" for the message itself."""

    setting: str
    code: str
    content: str
    since: str = ""
    deadlines: str = ""  # what else must be set, so that this clock is the first


CLOCKS = (
    Clock("startup", "WORKER_STARTUP_FAILED", "hello"),
    Clock("heartbeat", "WORKER_UNRESPONSIVE", "freeze"),
    Clock("first_output", "FIRST_OUTPUT_TIMEOUT", "hang"),
    Clock("progress", "NO_PROGRESS", "stream 100 3000", "output"),
    Clock("tool", "TOOL_TIMEOUT", "tool", "status"),
    Clock("question", "QUESTION_TIMEOUT", "ask Well?", "question"),
    Clock("turn", "TURN_TIMEOUT", "stream 10000 20"),
)


def _config() -> str:
    parts = [
        LIMITS,
        '[workers.bench]\ncommand = ["python", "-m", "benchmarks.agent"]\nzygote = true',
        '[workers.mute]\ncommand = ["sleep", "1000"]',
    ]
    for clock in CLOCKS:
        worker = "mute" if clock.setting == "startup" else "bench"
        parts.append(
            f'[[agents]]\nid = "{clock.setting}"\nworker = "{worker}"\nfailure = {{ max_attempts = 1 }}\n'
            f"deadlines = {{ {clock.setting}_seconds = {DEADLINE} }}"
        )
    return "\n".join(parts)


def measure(bench: Bench) -> Result:
    bench.own_only("hang")
    repeat = bench.often(REPEAT, FEW)
    latencies, figures = [], []
    with own_server(_config()) as server:
        for clock in CLOCKS:
            with floors.Beside(
                {
                    "commit": lambda: floors.commit(server.database_url, bench.floors),
                    "request": lambda: floors.loopback_request(bench.floors),
                }
            ) as beside:
                taken = Histogram()
                for number in range(repeat):
                    bench.progress(f"hang: {clock.setting}, {number} of {repeat}")
                    taken.record(_once(server.port, server.key, clock))
            parts = beside.medians()
            floor = {"deadline": DEADLINE, "commit": parts["commit"], "event": parts["request"] / 2}
            latencies.append(Latency(f"{clock.setting} to {clock.code}", taken, floor))
            beyond = (taken.percentile(50) - DEADLINE) * 1e3
            figures.append(Figure(f"{clock.code}, beyond the deadline, p50", beyond, "ms"))
    return Result("hang", WHAT, {"repeat": repeat, "deadline_seconds": DEADLINE}, latencies, figures)


def _once(port: int, key: str, clock: Clock) -> float:
    conversation = Conversation(port, key, f"hang-{time.time_ns()}", clock.setting)
    try:
        begun = time.perf_counter()
        conversation.send(clock.content)
        if clock.since:
            begun = conversation.wait_for(clock.since)
        event, data, arrived = conversation.next_of("agent-error", "complete")
        if data.get("errorCode") != clock.code:
            raise RuntimeError(f"{clock.setting}: the client was told {event} {data.get('errorCode')}")
        return arrived - begun
    finally:
        conversation.close()

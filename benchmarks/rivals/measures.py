"""What is measured of each contender, the same for all: numbers by name."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.rivals.places import Contender, Postgres, cpu_seconds
from benchmarks.server import own_memory

TERMINALS = ("complete", "agent-error", "cancelled")
CONTENT = "hello"
POLL_SECONDS = 0.002
PROBES = 3
TRIES = 10
REST_SECONDS = 3.0  # some systems shrink what has been idle for a second

# What happened to the turn that was under way when its server was killed.
SAME, TWICE, FAILED, LOST = "same run went on", "run twice", "failed", "no end"


@attrs.frozen
class Plan:
    turns: int = 1000
    at_once: int = 16
    turns_at_once: int = 4000
    kills: int = 30
    streams: int = 1000
    run_seconds: float = 2.0  # of the turn whose server is killed
    wait_seconds: float = 90.0  # for its end, from the kill on
    most_seconds: float = 60.0  # about, of turns in a row: who takes a second for each is asked for fewer

    @classmethod
    def quick(cls) -> Plan:
        return cls(
            turns=60,
            turns_at_once=160,
            at_once=4,
            kills=3,
            streams=40,
            run_seconds=0.5,
            most_seconds=10.0,
        )


@attrs.frozen
class Found:
    """`numbers` by name, with the unit in it; `outcomes`: what became of the turn, by what was killed."""

    numbers: dict[str, float]
    outcomes: dict[str, str]


def measure(contender: Contender, database: Postgres, plan: Plan, progress: Callable[[str], None]) -> Found:
    """Of a contender that was started. Raises RuntimeError when it does not do its work."""
    numbers: dict[str, float] = {}
    outcomes: dict[str, str] = {}
    progress(f"{contender.name}: idle streams")
    numbers["kB an idle stream"] = _idle_stream(contender, plan) / 1e3
    progress(f"{contender.name}: one turn after another")
    numbers |= _one_by_one(contender, database, plan)
    progress(f"{contender.name}: {plan.at_once} at once")
    numbers |= _at_once(contender, plan)
    progress(f"{contender.name}: workers killed")
    numbers |= _worker_crash(contender, plan)
    for what, kill in {"server": contender.kill_server, "server and workers": contender.kill_all}.items():
        progress(f"{contender.name}: {what} killed")
        outcomes[what], seconds = _server_crash(contender, kill, plan)
        if seconds is not None:
            numbers[f"{what} killed to end, s"] = seconds
    return Found(numbers, outcomes)


def _turns(contender: Contender, look: Callable[[str], None], conversations: int, turns: int) -> dict[str, Any]:
    plan = {"conversations": conversations, "turns": turns, "rate": 0.0, "warm": 3, "content": CONTENT}
    told = generate(contender.url, contender.key, "turns", look, agent=contender.agent, **plan)
    done = turns // conversations * conversations
    if told["ends"] != {"complete": done}:
        raise RuntimeError(f"{contender.name}: not every turn was completed: {told['ends']}\n{contender.log()[-2000:]}")
    return told


def _how_many(contender: Contender, conversations: int, wanted: int, plan: Plan) -> int:
    """Turns for a measurement, by what a few take."""
    told = _turns(contender, lambda word: None, conversations, PROBES * conversations)
    rate = PROBES * conversations / told["wall"]
    return max(min(wanted, int(rate * plan.most_seconds)), PROBES * conversations)


def _one_by_one(contender: Contender, database: Postgres, plan: Plan) -> dict[str, float]:
    seen: list[dict[str, float]] = []

    def look(_: str) -> None:
        parts = {"server": contender.servers(), "worker": contender.workers(), "Postgres": database.processes()}
        seen.append({part: cpu_seconds(processes) for part, processes in parts.items()})

    turns = _how_many(contender, 1, plan.turns, plan)
    told = _turns(contender, look, 1, turns)
    taken = Histogram.decode(told["histogram"])
    used = {f"CPU ms a turn, {part}": (seen[1][part] - seen[0][part]) / turns * 1e3 for part in seen[0]}
    return {
        "one turn p50, ms": taken.percentile(50) * 1e3,
        "one turn p99, ms": taken.percentile(99) * 1e3,
        "CPU ms a turn": sum(used.values()),
        **used,
    }


def _at_once(contender: Contender, plan: Plan) -> dict[str, float]:
    turns = _how_many(contender, plan.at_once, plan.turns_at_once, plan)
    told = _turns(contender, lambda word: None, plan.at_once, turns)
    taken = Histogram.decode(told["histogram"])
    return {
        "at once, turns/s": len(taken) / told["wall"],
        "at once p50, ms": taken.percentile(50) * 1e3,
        "at once p99, ms": taken.percentile(99) * 1e3,
        "at once, client CPU share": told["client_cpu"],
    }


def _idle_stream(contender: Contender, plan: Plan) -> float:
    """Bytes that the servers grew by for each open stream of a conversation with no worker."""
    own: list[int] = []
    settings: dict[str, Any] = {"agent": contender.agent, "reads": True, "content": ""}
    settings |= {"rest_seconds": REST_SECONDS, "posters": False}
    generate(contender.url, contender.key, "hold", conversations=plan.streams // 4, **settings)  # pools, caches
    look = lambda word: own.append(sum(own_memory(contender.servers())))  # noqa: E731
    generate(contender.url, contender.key, "hold", look, conversations=plan.streams, **settings)
    return (own[1] - own[0]) / plan.streams


def _worker_crash(contender: Contender, plan: Plan) -> dict[str, float]:
    """SIGKILL in the middle of a reply, to the error at the client."""
    conversation = Conversation(contender.port, contender.key, f"crash-{time.time_ns()}", contender.agent)
    taken = Histogram()
    for _ in range(plan.kills):
        before = {process.pid for process in contender.workers()}
        conversation.send(CONTENT)  # a reply in between: otherwise some call it a crash loop
        conversation.wait_for("complete")
        mine = {process.pid for process in contender.workers()} - before
        conversation.send("stream 100000 20")
        conversation.wait_for("output")
        [pid] = mine
        begun = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        taken.record(conversation.wait_for("agent-error") - begun)
    conversation.close()
    return {
        "worker killed to error p50, ms": taken.percentile(50) * 1e3,
        "worker killed to error max, ms": taken.most * 1e3,
    }


def _server_crash(contender: Contender, kill: Callable[[], None], plan: Plan) -> tuple[str, float | None]:
    """Kill in the middle of a turn, and start at once; the client comes back with its last id as soon as it can."""
    for _ in range(TRIES):
        found = _one_server_crash(contender, kill, plan)
        if found is not None:
            return found
    raise RuntimeError(f"{contender.name}: no turn of {plan.run_seconds:g} s was killed in its middle")


def _one_server_crash(contender: Contender, kill: Callable[[], None], plan: Plan) -> tuple[str, float | None] | None:
    """None when the turn may have ended before the kill: then this was none."""
    conversation = Conversation(contender.port, contender.key, f"killed-{time.time_ns()}", contender.agent)
    conversation.send(CONTENT)
    conversation.wait_for("complete")
    runs = Path(tempfile.gettempdir()) / f"rival-runs-{os.getpid()}-{time.time_ns()}"
    try:
        sent = time.perf_counter()
        conversation.send(f"runs {runs} {plan.run_seconds}")
        while not runs.exists() or not runs.read_text():
            time.sleep(POLL_SECONDS)
        begun = time.perf_counter()
        kill()
        in_its_middle = time.perf_counter() - sent < plan.run_seconds
        contender.start()
        if not in_its_middle:
            return None
        event, seconds = _end_of(conversation, contender.port, begun, plan.wait_seconds)
        times = len(runs.read_text().split())
    finally:
        runs.unlink(missing_ok=True)
        with suppress(OSError):
            conversation.close()
    if event is None:
        return LOST, None
    if event != "complete":
        return FAILED, seconds
    return (TWICE if times > 1 else SAME), seconds


def _end_of(conversation: Conversation, port: int, begun: float, wait: float) -> tuple[str | None, float | None]:
    while (left := begun + wait - time.perf_counter()) > 0:
        try:
            conversation.read_at(port, timeout_seconds=left)
            event, _, arrived = conversation.next_of(*TERMINALS)
        except OSError:  # not up yet, or nothing came in time
            time.sleep(POLL_SECONDS)
            continue
        return event, arrived - begun
    return None, None

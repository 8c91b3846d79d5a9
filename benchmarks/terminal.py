"""A message to its terminal event, at the client: warm and cold, one conversation and hundreds, at a fixed rate."""

from __future__ import annotations

from typing import Any

from benchmarks import floors
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench, Target
from benchmarks.results import Latency, Result
from benchmarks.server import EXECUTED, FORKED, Server
from benchmarks.spawn import bare_forks

WHAT = "message to terminal event: warm and cold, 1 to 500 conversations at a fixed rate, 16 and 64 as fast as they can"
CONVERSATIONS, FEW = (1, 10, 100, 500), (1, 10)
TURNS, FEW_TURNS = 1000, 60
AT_ONCE, FEW_AT_ONCE = (16, 64), (16,)  # that send their next message as soon as they have an end
COLD, FEW_COLD = 100, 5
# Where a worker waits, the statement that accepts a message begins its run.
WARM_COMMITS, COLD_COMMITS = 2, 3
RATE, LOW_RATE = 50.0, 20.0
WARM_UP = 3
CONTENT = "hello"


def measure(bench: Bench) -> Result:
    turns, rate = bench.often(TURNS, FEW_TURNS), bench.rate or (LOW_RATE if bench.quick else RATE)
    found = []
    with bench.target() as target:
        bench.progress("terminal: one conversation")
        found.append(warm(bench, target, "warm, one after another", conversations=1, turns=turns, rate=0.0))
        for number in FEW if bench.quick else CONVERSATIONS:
            bench.progress(f"terminal: {number} conversations")
            name = f"warm, {number} at once, {rate:g} a second"
            found.append(warm(bench, target, name, conversations=number, turns=turns, rate=rate))
        for number in FEW_AT_ONCE if bench.quick else AT_ONCE:
            bench.progress(f"terminal: {number} conversations, as fast as they can")
            name = f"warm, {number} at once, as fast as they can"
            found.append(warm(bench, target, name, conversations=number, turns=4 * turns, rate=0.0))
        if target.server is not None:
            for agent in (FORKED, EXECUTED):
                bench.progress(f"terminal: cold, {agent}")
                found.append(_cold(bench, target, agent, FEW_COLD if bench.quick else min(turns, COLD)))
    return Result("terminal", WHAT, {"turns": turns, "rate": rate, "content": CONTENT}, found)


def parts(target: Target, repeat: int) -> floors.Parts:
    """Of the path of one turn with its worker there. Commits only where the database can be asked."""
    found: floors.Parts = {"request": lambda: floors.loopback_request(repeat)}
    if (database := target.database_url) is not None:
        found["commit"] = lambda: floors.commit(database, repeat)
    if target.server is not None:
        found["worker hop"] = lambda: floors.process_hop(repeat)
    return found


def path_of(found: dict[str, float], commits: int) -> dict[str, float]:
    """In the order in which they happen."""
    path = {"request": found["request"]}
    if "commit" in found:
        path[f"{commits} commits"] = commits * found["commit"]
    if "worker hop" in found:
        path["worker hop"] = found["worker hop"]
    return {**path, **{name: found[name] for name in ("fork", "start") if name in found}, "event": found["request"] / 2}


def warm(bench: Bench, target: Target, name: str, *, conversations: int, turns: int, rate: float) -> Latency:
    use = Use(target.server)
    turns = max(turns // conversations, 1) * conversations
    with floors.Beside(parts(target, bench.floors)) as beside:
        told = generate(
            target.url,
            target.key,
            "turns",
            use.look,
            agent=target.agent,
            conversations=conversations,
            turns=turns,
            rate=rate,
            warm=WARM_UP,
            content=CONTENT,
        )
    if told["ends"] != {"complete": turns}:
        raise RuntimeError(f"{name}: not every turn was completed: {told['ends']}")
    figures = {"client CPU share": told["client_cpu"]}
    if rate:
        figures["sent late, p99 ms"] = Histogram.decode(told["late"]).percentile(99) * 1e3
    if conversations > 1:
        figures["turns a second"] = turns / told["wall"]
    path = path_of(beside.medians(), WARM_COMMITS)
    return Latency(name, Histogram.decode(told["histogram"]), path, figures | use.per(turns))


def _cold(bench: Bench, target: Target, agent: str, turns: int) -> Latency:
    start = "import benchmarks.agent, lobu_actors.worker.blocking"
    extra: floors.Parts = (
        {"fork": lambda: bare_forks(100)} if agent == FORKED else {"start": lambda: floors.start_of(start, 5)}
    )
    use = Use(target.server)
    with floors.Beside(parts(target, bench.floors) | extra) as beside:
        settings: dict[str, Any] = {"agent": agent, "turns": turns, "content": CONTENT}
        told = generate(target.url, target.key, "cold", use.look, **settings)
    figures = {"client CPU share": told["client_cpu"]}
    path = path_of(beside.medians(), COLD_COMMITS)
    return Latency(f"cold, {agent}", Histogram.decode(told["histogram"]), path, figures)


class Use:
    """What each part of the server used between `begin` and `end`; nothing of one that is not ours."""

    def __init__(self, server: Server | None) -> None:
        self._server = server
        self._cpu: list[dict[str, float]] = []
        self._wakeups: list[dict[str, int]] = []

    def look(self, said: str) -> None:
        if self._server is not None:
            self._cpu.append(self._server.cpu())
            self._wakeups.append(self._server.wakeups())

    def per(self, number: int, unit: str = "turn") -> dict[str, float]:
        if self._server is None:
            return {}
        found = {
            f"CPU ms a {unit}, {part}": (used - self._cpu[0].get(part, 0.0)) / number * 1e3
            for part, used in sorted(self._cpu[1].items())
        }
        found[f"CPU ms a {unit}"] = sum(found.values())
        for part, count in sorted(self._wakeups[1].items()):
            found[f"wakeups a {unit}, {part}"] = (count - self._wakeups[0].get(part, 0)) / number
        return found

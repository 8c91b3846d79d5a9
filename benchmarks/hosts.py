"""Three complete hosts on one machine over one Postgres: what it costs that a reader is at another host than the
worker, how many turns one, two and three hosts end together, and what Postgres spends on a turn.

All hosts, their workers, Postgres and the clients share this machine's cores, so more hosts cannot be faster here than
one that keeps them busy: the throughput says what a host more costs, not what it brings on a machine of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import attrs
import psycopg

from benchmarks import floors, terminal
from benchmarks.accept import commits_a_second
from benchmarks.cluster import Meter, Spent, cluster
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench, Target
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import FORKED, Server, own_database

WHAT = "1 to 3 hosts on one Postgres: an event at another host's reader, turns a second, what Postgres spends"
TURNS, FEW_TURNS = 1000, 20
SPENDING_TURNS = 200  # at most, for what Postgres spends
TURNS_A_STREAM = 20  # one reply that is streamed for so many turns
PIECES, DELAY_MS = 20, 5.0
CLIENTS, FEW_CLIENTS = 8, 2  # of each host, in the throughput
SECONDS, FEW_SECONDS = 10.0, 1.0
# An idle session hands its counters to pg_stat_database within ten; the short form does not wait for them.
SETTLE_SECONDS, FEW_SETTLE_SECONDS = 11.0, 1.0
# How many hosts are busy, phase by phase. Each number is first, second and third once: a drift favours none.
ROUNDS = ((1, 3, 2), (3, 2, 1), (2, 1, 3))
COUNTED = {"transactions": ("statements", 1.0), "commits": ("commits", 1.0), "wal_bytes": ("kB of WAL", 1e3)}
POSTED = {"near": "at the owner", "far": "at another host"}
WARM_UP = 5
CONTENT = "hello"


def measure(bench: Bench) -> Result:
    bench.own_only("hosts")
    turns = bench.often(TURNS, FEW_TURNS)
    clients, seconds = (FEW_CLIENTS, FEW_SECONDS) if bench.quick else (CLIENTS, SECONDS)
    rounds = ROUNDS[:1] if bench.quick else ROUNDS
    with own_database() as database:
        meter = Meter(database, FEW_SETTLE_SECONDS if bench.quick else SETTLE_SECONDS)
        with cluster(database, 3) as hosts:
            bench.progress("hosts: a reader at another host")
            latencies = _apart(bench, hosts, turns)
            figures = _spending(bench, hosts, meter, min(turns, SPENDING_TURNS))
        under_load, rates = _throughput(bench, database, meter, rounds, clients, seconds)
        meter.close()
    settings = {
        "turns": turns,
        "clients_a_host": clients,
        "seconds": seconds,
        "phases": "".join(map(str, sum(rounds, ()))),
    }
    return Result("hosts", WHAT, settings, [*latencies, *under_load], [*rates, *figures])


# --- a reader at another host


def _plan(hosts: Sequence[Server], turns: int, posted_at: Sequence[str], streams: int) -> dict[str, Any]:
    return {
        "agent": FORKED,
        "other": hosts[1].url,
        "turns": turns,
        "posted_at": posted_at,
        "streams": streams,
        "pieces": PIECES,
        "delay_ms": DELAY_MS,
        "warm": WARM_UP,
        "content": CONTENT,
    }


def _apart(bench: Bench, hosts: Sequence[Server], turns: int) -> list[Latency]:
    """A conversation of the first host, read there and at the second all the time, posted to at each in turn."""
    owner = hosts[0]
    with floors.Beside(terminal.parts(_target(owner), bench.floors)) as beside:
        streams = max(turns // TURNS_A_STREAM, 1)
        told = generate(owner.url, owner.key, "apart", **_plan(hosts, turns, list(POSTED), streams))
    _check_owner(owner, told["conversation"])
    parts = beside.medians()
    path = terminal.path_of(parts, terminal.WARM_COMMITS)
    paths = {"near": path, "far": path | {"hint there, event back": parts["request"]}}
    message = {"message to a process": parts["request"] / 2}
    return [
        *(Latency(f"turn, posted and read {POSTED[at]}", Histogram.decode(told[at]), paths[at]) for at in POSTED),
        Latency("a piece, later at the other host's reader", Histogram.decode(told["piece_later"]), message),
        Latency("a terminal event, later at the other host's reader", Histogram.decode(told["end_later"]), message),
    ]


def _target(host: Server) -> Target:
    return Target(host.url, host.key, FORKED, host.database_url, host)


def _check_owner(host: Server, conversation: str) -> None:
    """RuntimeError when the conversation is not this host's: then near was far."""
    host_id = (host.folder / ".lobu" / "host_id").read_text()
    with psycopg.connect(host.database_url, autocommit=True) as database:
        statement = "SELECT host_id FROM actor_lease WHERE position(%s in key) > 0"
        owners = database.execute(statement, (conversation,)).fetchall()
    if owners != [(host_id,)]:
        raise RuntimeError(f"the conversation to measure was not at the host {host_id} where it began: {owners}")


# --- what Postgres spends


def _spending(bench: Bench, hosts: Sequence[Server], meter: Meter, turns: int) -> list[Figure]:
    bench.progress("hosts: what Postgres spends on idle hosts")
    meter.settle()
    meter.spent()
    meter.settle()
    idle = meter.spent()
    figures = []
    for at, where in POSTED.items():
        bench.progress(f"hosts: what Postgres spends on a turn that is posted {where}")
        spent: list[Spent] = []

        def look(said: str, spent: list[Spent] = spent) -> None:
            meter.settle()
            spent.append(meter.spent())

        generate(hosts[0].url, hosts[0].key, "apart", look, **_plan(hosts, turns, [at], 0))
        figures += _counted(f"of a turn posted {where}", "a turn", spent[1].per_turn(idle, turns))
    return figures + _counted(f"of {len(hosts)} idle hosts", "1/s", idle.per_second())


def _counted(whose: str, per: str, found: Mapping[str, float]) -> list[Figure]:
    return [Figure(f"{what} {whose}", found[name] / unit, per) for name, (what, unit) in COUNTED.items()]


# --- all hosts busy


@attrs.frozen
class Phase:
    """`turns` from message to terminal event, of all clients together."""

    turns: Histogram
    rate: float
    spent: Spent


def _throughput(
    bench: Bench, database: str, meter: Meter, rounds: Sequence[Sequence[int]], clients: int, seconds: float
) -> tuple[list[Latency], list[Figure]]:
    phases: dict[int, list[Phase]] = {number: [] for number in sorted(rounds[0])}
    bare: dict[int, list[float]] = {number: [] for number in phases}
    paths: list[dict[str, float]] = []
    for numbers in rounds:
        for number in numbers:
            bench.progress(f"hosts: {number} busy")
            with cluster(database, number) as hosts:
                with floors.Beside(terminal.parts(_target(hosts[0]), bench.floors)) as beside:
                    phases[number].append(_busy(hosts, meter, clients, seconds))
                paths.append(terminal.path_of(beside.medians(), terminal.WARM_COMMITS))
            bare[number].append(commits_a_second(database, number * clients, 1.0))
    path = {part: median(one[part] for one in paths) for part in paths[0]}
    latencies, figures = [], []
    for number, found in phases.items():
        turns = Histogram()
        for phase in found:
            turns.add(phase.turns)
        name, rates = f"{number} hosts, {number * clients} clients", [phase.rate for phase in found]
        beside_it = {
            "turns a second, least": min(rates),
            "turns a second, most": max(rates),
            "commits a turn": sum(phase.spent.commits for phase in found) / len(turns),
            "kB of WAL a turn": sum(phase.spent.wal_bytes for phase in found) / len(turns) / 1e3,
        }
        latencies.append(Latency(f"turn, {name}", turns, path, beside_it))
        floor = median(bare[number]) / terminal.WARM_COMMITS
        figures.append(Figure(f"turns a second, {name}", median(rates), "1/s", floor, more_is_better=True))
    return latencies, figures


def _busy(hosts: Sequence[Server], meter: Meter, clients: int, seconds: float) -> Phase:
    """`clients` at each host, one process of them for each; they begin together."""
    spent: list[Spent] = []
    together = threading.Barrier(len(hosts), lambda: spent.append(meter.spent()), timeout=60.0 + seconds)

    def meet(said: str) -> None:
        together.wait()

    def load(host: Server) -> dict[str, Any]:
        plan = {"agent": FORKED, "conversations": clients, "seconds": seconds, "content": CONTENT}
        try:
            return generate(host.url, host.key, "busy", meet, **plan)
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(len(hosts)) as pool:
        loads = [pool.submit(load, host) for host in hosts]
    problems = [problem for one in loads if (problem := one.exception()) is not None]
    if problems:  # who only waited for the one that failed says nothing of use
        raise min(problems, key=lambda problem: isinstance(problem, threading.BrokenBarrierError))
    told = [one.result() for one in loads]
    turns = Histogram()
    for one in told:
        turns.add(Histogram.decode(one["histogram"]))
        if one["ends"].keys() != {"complete"}:
            raise RuntimeError(f"{len(hosts)} busy hosts: not every turn was completed: {one['ends']}")
    return Phase(turns, len(turns) / max(one["wall"] for one in told), spent[1])

"""Three complete hosts on one machine over one Postgres: what it costs that a reader is at another host than the
worker, how many turns one, two and three hosts end together, and what Postgres spends on a turn.

All hosts, their workers, Postgres and this client share this machine's cores, so more hosts cannot be faster here than
one that keeps them busy: the throughput says what a host more costs, not what it brings on a machine of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import attrs

from benchmarks import floors
from benchmarks.cluster import Cluster, Meter, Spent, cluster
from benchmarks.http import Conversation
from benchmarks.results import Result, percentile
from benchmarks.server import Server

FLOOR_REPEAT = 300
WARM_UP = 10
WORDS, EVERY_MS = 20, 5  # of a reply that is streamed
CLIENTS = 8  # of each host, in the throughput
PHASE_SECONDS = 10.0
EVENT_SECONDS = 60.0
HOSTS = 3
KINDS = ("local", "cross-host")
TERMINALS = frozenset({"complete", "agent-error", "cancelled"})

Progress = Callable[[str], None]


def _figures(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "times": len(seconds),
        **{f"p{part}_ms": round(percentile(seconds, part / 100) * 1e3, 3) for part in (50, 99)},
        "max_ms": round(max(seconds) * 1e3, 3),
    }


@attrs.frozen
class Throughput:
    hosts: int
    accepted: int
    completed: int
    failed: int
    seconds: float
    turn_seconds: Sequence[float]  # message to terminal event, under this load
    spent: Spent

    def as_json(self) -> dict[str, Any]:
        return {
            "hosts": self.hosts,
            "clients": self.hosts * CLIENTS,
            "accepted_per_second": round(self.accepted / self.seconds, 1),
            "completed_per_second": round(self.completed / self.seconds, 1),
            "failed": self.failed,
            "turn": _figures(self.turn_seconds),
            "commits_per_turn": round(self.spent.commits / self.completed, 2),
            "wal_bytes_per_turn": round(self.spent.wal_bytes / self.completed),
        }


@attrs.frozen
class Hosts:
    """`turns` by kind; `added_…`: how much later the other host's reader had the same delta or terminal event than the
    owner's."""

    turns: dict[str, Result]
    added_delta: Sequence[float]
    added_terminal: Sequence[float]
    hop: float  # median of a bare loopback message, one way
    throughput: Sequence[Throughput]
    idle: Spent
    spent: dict[str, tuple[Spent, int]]  # with the number of turns

    def as_json(self) -> dict[str, Any]:
        return {
            "name": "hosts",
            "what": f"{HOSTS} hosts over one Postgres, all on this machine: they share its {os.cpu_count()} cores",
            "turn": {kind: self.turns[kind].as_json() for kind in KINDS},
            "added_by_the_link": {
                "delta": _figures(self.added_delta),
                "terminal": _figures(self.added_terminal),
                "floor_ms": round(self.hop * 1e3, 3),
                "delta_p50_to_floor": round(percentile(self.added_delta, 0.5) / self.hop, 2),
                "terminal_p50_to_floor": round(percentile(self.added_terminal, 0.5) / self.hop, 2),
            },
            "throughput": [one.as_json() for one in self.throughput],
            "postgres_per_turn": {kind: spent.per_turn(self.idle, n) for kind, (spent, n) in self.spent.items()},
            "postgres_idle_per_second": {"hosts": HOSTS, **self.idle.per_second()},
        }

    def as_text(self) -> str:
        found = self.as_json()
        added, idle = found["added_by_the_link"], found["postgres_idle_per_second"]
        lines = [f"hosts: {found['what']}", *(self.turns[kind].as_text() for kind in KINDS)]
        for name in ("delta", "terminal"):
            one = added[name]
            lines.append(
                f"added by the link, {name}: p50 {one['p50_ms']:.2f} ms   p99 {one['p99_ms']:.2f} ms   max "
                f"{one['max_ms']:.2f} ms   ({one['times']} times); p50 is {added[f'{name}_p50_to_floor']:.1f} times a "
                f"bare message between two processes ({added['floor_ms']:.3f} ms)"
            )
        for one in found["throughput"]:
            lines.append(
                f"{one['hosts']} hosts, {one['clients']} clients: {one['accepted_per_second']:.0f} accepted/s   "
                f"{one['completed_per_second']:.0f} completed/s   {one['failed']} failed   turn p50 "
                f"{one['turn']['p50_ms']:.1f} ms   p99 {one['turn']['p99_ms']:.1f} ms   "
                f"{one['commits_per_turn']:.2f} commits and {one['wal_bytes_per_turn']} bytes of WAL a turn"
            )
        for kind, one in found["postgres_per_turn"].items():
            lines.append(
                f"Postgres, a {kind} turn: {one['transactions']:.2f} statements, each a transaction; "
                f"{one['commits']:.2f} of them write; {one['wal_bytes']:.0f} bytes of WAL"
            )
        lines.append(
            f"Postgres, {idle['hosts']} idle hosts: {idle['transactions']:.1f} statements, {idle['commits']:.1f} "
            f"commits and {idle['wal_bytes']:.0f} bytes of WAL a second"
        )
        return "\n".join(lines)


def hosts(repeat: int, progress: Progress) -> Hosts:
    """`repeat` turns of each kind, where not said otherwise; starts its own hosts."""
    with cluster() as found:
        meter = Meter(found.url)
        throughput = []
        for number in range(1, HOSTS + 1):
            if number > 1:
                found.add()
            progress(f"hosts: throughput with {number}")
            throughput.append(_throughput(found, meter))
        measured = _latency(found, repeat, progress)
        progress("hosts: what Postgres spends")
        idle, spent = _spending(found, meter, repeat)
        meter.close()
    return Hosts(*measured, throughput, idle, spent)


# --- readers


class Reader:
    """Follows one stream in a thread of its own, and keeps when each text length and each terminal event came."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.deltas: dict[tuple[str, int], float] = {}  # by message, and length of the text with it
        self.terminals: dict[str, tuple[str, float]] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def ended(self, message_id: str) -> tuple[str, float]:
        """The terminal event and its time. Raises ConnectionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: message_id in self.terminals, EVENT_SECONDS):
                raise ConnectionError(f"no terminal event within {EVENT_SECONDS:g} s")
            return self.terminals[message_id]

    def _follow(self) -> None:
        lengths: dict[str, int] = {}
        try:
            for name, data, arrived in self.conversation.events:
                message_id = str(data.get("messageId"))
                if name == "output":
                    lengths[message_id] = lengths.get(message_id, 0) + len(data["content"])
                    self.deltas[message_id, lengths[message_id]] = arrived
                elif name in TERMINALS:
                    with self._changed:
                        self.terminals[message_id] = name, arrived
                        self._changed.notify_all()
        except OSError:
            pass  # it was closed; who waits hears of that by its bound


# --- the other host's reader


def _latency(
    found: Cluster, repeat: int, progress: Progress
) -> tuple[dict[str, Result], list[float], list[float], float]:
    """A conversation of host B, read at B and at A all the time; messages are posted at B and at A in turn."""

    def parts() -> tuple[list[float], list[float], list[float]]:
        return floors.loopback_request(FLOOR_REPEAT), floors.commit(found.url, FLOOR_REPEAT), floors.process_hop(300)

    before = parts()
    readers = _readers(found)
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    added_delta: list[float] = []
    added_terminal: list[float] = []
    for number in range(WARM_UP + repeat):
        for kind in KINDS:
            begun = time.perf_counter()
            message_id = readers[kind].conversation.send("hello")
            ends = {of: _complete(reader, message_id) for of, reader in readers.items()}
            if number >= WARM_UP:
                taken[kind].append(ends[kind] - begun)
                added_terminal.append(ends["cross-host"] - ends["local"])
        if number % 2 == 0:
            message_id = readers[KINDS[number // 2 % 2]].conversation.send(f"stream {WORDS} {EVERY_MS}")
            for reader in readers.values():
                _complete(reader, message_id)
            near, far = readers["local"].deltas, readers["cross-host"].deltas
            both = [key for key in near.keys() & far.keys() if key[0] == message_id]
            if number >= WARM_UP:
                added_delta += [far[key] - near[key] for key in both]
        if number % 20 == 0:
            progress(f"hosts: {number} of {WARM_UP + repeat} turns of each kind")
    for reader in readers.values():
        reader.conversation.close()
    request, commit, hop = (median(one + other) for one, other in zip(before, parts(), strict=True))
    path = {"request": request, "3 commits": 3 * commit, "worker hop": hop, "event to reader": request / 2}
    paths = {"local": path, "cross-host": path | {"hint there, event back": request}}
    what = {
        "local": "message to terminal event, reader at the owner",
        "cross-host": "the same, posted and read at another host",
    }
    results = {kind: Result(kind, what[kind], taken[kind], paths[kind]) for kind in KINDS}
    return results, added_delta, added_terminal, request / 2


def _readers(found: Cluster) -> dict[str, Reader]:
    """Of one conversation that the second host owns, since it had its first message: there, and at the first."""
    name = f"hosts-{time.time_ns()}"
    far, near = (Conversation(host.port, host.key, name) for host in found.hosts[:2])
    readers = {"local": Reader(near), "cross-host": Reader(far)}
    for _ in range(WARM_UP):
        message_id = near.send("hello")
        for reader in readers.values():
            _complete(reader, message_id)
    return readers


def _complete(reader: Reader, message_id: str) -> float:
    name, arrived = reader.ended(message_id)
    if name != "complete":
        raise RuntimeError(f"a turn to measure ended with {name}")
    return arrived


# --- all hosts busy


def _throughput(found: Cluster, meter: Meter) -> Throughput:
    """Each client has a conversation at its host and sends its next message when the last one is answered."""
    accepted, ends, failed = list[str](), list[float](), list[str]()
    begin = threading.Barrier(len(found.hosts) * CLIENTS + 1)
    until = [0.0]

    def client(host: Server, number: int) -> None:
        conversation = Conversation(host.port, host.key, f"busy-{len(found.hosts)}-{host.port}-{number}")
        for _ in range(WARM_UP):
            conversation.send("hello")
            conversation.wait_for(*TERMINALS)
        begin.wait()
        begin.wait()
        while (begun := time.perf_counter()) < until[0]:
            accepted.append(conversation.send("hello"))
            name, arrived = next((name, arrived) for name, _, arrived in conversation.events if name in TERMINALS)
            if name == "complete":
                ends.append(arrived - begun)
            else:
                failed.append(name)
        conversation.close()

    threads = [
        threading.Thread(target=client, args=(host, number), daemon=True)
        for host in found.hosts
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    begin.wait(EVENT_SECONDS)
    meter.spent()
    started = time.perf_counter()
    until[0] = started + PHASE_SECONDS
    begin.wait(EVENT_SECONDS)
    for thread in threads:
        thread.join(PHASE_SECONDS + EVENT_SECONDS)
    seconds = time.perf_counter() - started
    return Throughput(len(found.hosts), len(accepted), len(ends), len(failed), seconds, ends, meter.spent())


# --- what Postgres spends


def _spending(found: Cluster, meter: Meter, turns: int) -> tuple[Spent, dict[str, tuple[Spent, int]]]:
    readers = _readers(found)
    meter.settle()
    meter.spent()
    meter.settle()
    idle = meter.spent()
    spent = {}
    for kind in KINDS:
        for _ in range(turns):
            _complete(readers[kind], readers[kind].conversation.send("hello"))
        meter.settle()
        spent[kind] = meter.spent(), turns
    for reader in readers.values():
        reader.conversation.close()
    return idle, spent

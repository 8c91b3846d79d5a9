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

import attrs

from benchmarks import floors
from benchmarks.cluster import Cluster, Meter, Spent, cluster
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import Server

WHAT = "hosts over one Postgres: readers at another host, turns of one to three hosts, what Postgres spends"
REPEAT, FEW = 100, 5
WARM_UP = 10
WORDS, EVERY_MS = 20, 5  # of a reply that is streamed
CLIENTS = 8  # of each host, in the throughput
PHASE_SECONDS, FEW_PHASE_SECONDS = 10.0, 1.0
EVENT_SECONDS = 60.0
HOSTS = 3
KINDS = ("local", "cross-host")
TERMINALS = frozenset({"complete", "agent-error", "cancelled"})

Progress = Callable[[str], None]


@attrs.frozen
class Throughput:
    hosts: int
    accepted: int
    completed: int
    failed: int
    seconds: float
    turn_seconds: Sequence[float]  # message to terminal event, under this load
    spent: Spent

    def figures(self) -> list[Figure]:
        which = f"{self.hosts} hosts, {self.hosts * CLIENTS} clients"
        return [
            Figure(f"{which}, accepted a second", self.accepted / self.seconds, "1/s", more_is_better=True),
            Figure(f"{which}, completed a second", self.completed / self.seconds, "1/s", more_is_better=True),
            Figure(f"{which}, failed", self.failed, "turns"),
            Figure(f"{which}, commits a turn", self.spent.commits / self.completed, ""),
            Figure(f"{which}, write-ahead log a turn", self.spent.wal_bytes / self.completed, "bytes"),
        ]


def measure(bench: Bench) -> Result:
    """Starts its own hosts. What Postgres spends takes a minute of waiting, and is left out of the short form."""
    bench.own_only("hosts")
    repeat, seconds = bench.often(REPEAT, FEW), FEW_PHASE_SECONDS if bench.quick else PHASE_SECONDS
    latencies: list[Latency] = []
    figures: list[Figure] = []
    with cluster() as found:
        meter = Meter(found.url)
        for number in range(1, HOSTS + 1):
            if number > 1:
                found.add()
            bench.progress(f"hosts: throughput with {number}")
            one = _throughput(found, meter, seconds)
            figures += one.figures()
            latencies.append(Latency(f"busy, {number} hosts", Histogram(one.turn_seconds)))
        latencies += _latency(found, repeat, bench)
        if not bench.quick:
            bench.progress("hosts: what Postgres spends")
            figures += _spending(found, meter, repeat)
        meter.close()
    settings = {"hosts": HOSTS, "repeat": repeat, "shared cores": os.cpu_count()}
    return Result("hosts", WHAT, settings, latencies, figures)


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


def _latency(found: Cluster, repeat: int, bench: Bench) -> list[Latency]:
    """A conversation of host B, read at B and at A all the time; messages are posted at B and at A in turn."""

    with floors.Beside(
        {
            "request": lambda: floors.loopback_request(bench.floors),
            "commit": lambda: floors.commit(found.url, bench.floors),
            "worker hop": lambda: floors.process_hop(bench.floors),
        }
    ) as beside:
        taken, added = _turns(found, repeat, bench.progress)
    parts = beside.medians()
    request = parts["request"]
    path = {
        "request": request,
        "3 commits": 3 * parts["commit"],
        "worker hop": parts["worker hop"],
        "event": request / 2,
    }
    link = {"one way over loopback": request / 2}
    return [
        Latency("message to terminal event, reader at the owner", Histogram(taken["local"]), path),
        Latency(
            "the same, posted and read at another host",
            Histogram(taken["cross-host"]),
            path | {"hint there, event back": request},
        ),
        Latency("added by the link, delta", Histogram(added["delta"]), link),
        Latency("added by the link, terminal event", Histogram(added["terminal"]), link),
    ]


def _turns(found: Cluster, repeat: int, progress: Progress) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    readers = _readers(found)
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    added: dict[str, list[float]] = {"delta": [], "terminal": []}
    for number in range(WARM_UP + repeat):
        for kind in KINDS:
            begun = time.perf_counter()
            message_id = readers[kind].conversation.send("hello")
            ends = {of: _complete(reader, message_id) for of, reader in readers.items()}
            if number >= WARM_UP:
                taken[kind].append(ends[kind] - begun)
                added["terminal"].append(ends["cross-host"] - ends["local"])
        if number % 2 == 0:
            message_id = readers[KINDS[number // 2 % 2]].conversation.send(f"stream {WORDS} {EVERY_MS}")
            for reader in readers.values():
                _complete(reader, message_id)
            near, far = readers["local"].deltas, readers["cross-host"].deltas
            both = [key for key in near.keys() & far.keys() if key[0] == message_id]
            if number >= WARM_UP:
                added["delta"] += [far[key] - near[key] for key in both]
        if number % 20 == 0:
            progress(f"hosts: {number} of {WARM_UP + repeat} turns of each kind")
    for reader in readers.values():
        reader.conversation.close()
    return taken, added


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


def _throughput(found: Cluster, meter: Meter, phase: float) -> Throughput:
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
    until[0] = started + phase
    begin.wait(EVENT_SECONDS)
    for thread in threads:
        thread.join(phase + EVENT_SECONDS)
    seconds = time.perf_counter() - started
    return Throughput(len(found.hosts), len(accepted), len(ends), len(failed), seconds, ends, meter.spent())


# --- what Postgres spends


def _spending(found: Cluster, meter: Meter, turns: int) -> list[Figure]:
    readers = _readers(found)
    meter.settle()
    meter.spent()
    meter.settle()
    idle = meter.spent()
    figures = [Figure(f"{HOSTS} idle hosts, {name}", value, "1/s") for name, value in idle.per_second().items()]
    for kind in KINDS:
        for _ in range(turns):
            _complete(readers[kind], readers[kind].conversation.send("hello"))
        meter.settle()
        figures += [
            Figure(f"a {kind} turn, {name}", value, "") for name, value in meter.spent().per_turn(idle, turns).items()
        ]
    for reader in readers.values():
        reader.conversation.close()
    return figures

"""Two hosts of one machine on one database: the one that runs a turn is killed, paused, or cut off; a client that reads
at the other waits for the turn to begin again there, and for its end.

What must pass first is the rest of the host's lease, which is read from the database at the moment of the cause; only
of a host that was killed can the other prove that it is gone. That needs a link that is refused, so the relay stands
between the hosts only where it is to be cut.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from urllib.parse import parse_qs, urlsplit

import attrs
import psycopg

from benchmarks import floors
from benchmarks.cluster import SHARED, links_made, wait_for_links
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.relay import Relay, relay
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import AGENTS, FORKED, LIMITS, Server, free_port, own_database, own_server

WHAT = "a host killed, paused, cut off from database and links: to the turn's new begin, and its end, at the other host"
REPEAT, FEW = 5, 1
PIECES, DELAY_MS = 20, 50.0
TTL_SECONDS, QUICK_TTL_SECONDS = 6.0, 2.0


@attrs.frozen
class Pair:
    works: Server  # the turn runs here
    reads: Server  # the client reads here
    cable: Relay | None  # from the first to the database, and of the link between them
    database: str

    def lease_left(self) -> float:
        """Seconds until the database thinks that the first host may be dead."""
        host_id = (self.works.folder / ".lobu" / "host_id").read_text()
        with psycopg.connect(self.database, autocommit=True) as connection:
            statement = "SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM host WHERE host_id = %s"
            [(left,)] = connection.execute(statement, (host_id,)).fetchall()
        return float(left)

    def restore(self) -> None:
        """Both hosts up and linked, nothing left of what was done to the first."""
        self.works.kill_all()
        if self.cable is not None:
            self.cable.heal()
        seen = links_made(self.works)
        self.works.start()
        wait_for_links(self.works, seen + 1)


def _kill(pair: Pair) -> None:
    pair.works.kill_all()


def _pause(pair: Pair) -> None:
    pair.works.signal(signal.SIGSTOP)


def _cut(pair: Pair) -> None:
    assert pair.cable is not None
    pair.cable.cut()


CAUSES: dict[str, Callable[[Pair], None]] = {"killed": _kill, "paused": _pause, "cut off": _cut}
PROVED = "killed"  # is found out before the lease is over


def measure(bench: Bench) -> Result:
    bench.own_only("failover")
    repeat, ttl = bench.often(REPEAT, FEW), QUICK_TTL_SECONDS if bench.quick else TTL_SECONDS
    latencies, figures = [], []
    for name, cause in CAUSES.items():
        with _pair(ttl, cabled=cause is _cut) as pair:
            begins, ends, lefts = Histogram(), Histogram(), []
            with floors.Beside(
                {
                    "commit": lambda: floors.commit(pair.database, bench.floors),
                    "request": lambda: floors.loopback_request(bench.floors),
                }
            ) as beside:
                for number in range(repeat):
                    bench.progress(f"failover: {name}, {number} of {repeat}")
                    pair.restore()
                    left, begin, end = _once(pair, cause)
                    lefts.append(left)
                    begins.record(begin)
                    ends.record(end)
            parts = beside.medians()
            lease = 0.0 if name == PROVED else median(lefts)
            before = {"2 commits": 2 * parts["commit"]} | ({"rest of the lease": lease} if lease else {})
            event = {"event": parts["request"] / 2}
            work = {"the work again": PIECES * DELAY_MS / 1e3, "commit": parts["commit"]}
            latencies.append(Latency(f"{name}, to its new begin at the reader", begins, before | event))
            latencies.append(Latency(f"{name}, to its end at the reader", ends, before | work | event))
            beyond = (begins.percentile(50) - lease) * 1e3
            figures.append(Figure(f"{name}, to its new begin, beyond what it must wait for, p50", beyond, "ms"))
    return Result("failover", WHAT, {"repeat": repeat, "host_ttl_seconds": ttl}, latencies, figures)


def _once(pair: Pair, cause: Callable[[Pair], None]) -> tuple[float, float, float]:
    """What was left of the lease; seconds from the cause to `restart` and to the terminal event."""
    conversation = Conversation(pair.works.port, pair.works.key, f"failover-{time.time_ns()}", FORKED)
    try:
        conversation.send(f"stream {PIECES} {DELAY_MS}")
        conversation.wait_for("output")
        conversation.read_at(pair.reads.port)
        conversation.wait_for("connected")
        left = pair.lease_left()
        begun = time.perf_counter()
        cause(pair)
        again = conversation.wait_for("restart")
        event, data, ended = conversation.next_of("complete", "agent-error")
        if event != "complete":
            raise RuntimeError(f"the turn that was taken over ended with {data}")
        return left, again - begun, ended - begun
    finally:
        conversation.close()


@contextmanager
def _pair(ttl: float, *, cabled: bool) -> Iterator[Pair]:
    config = (
        f"{LIMITS}host_ttl_seconds = {ttl}\nhost_renew_seconds = {ttl / 3}\nhost_margin_seconds = {ttl / 6}\n{AGENTS}"
    )
    port = free_port()
    with own_database() as database, ExitStack() as stack:
        cable, through, shown = None, database, port
        if cabled:
            [folder] = parse_qs(urlsplit(database).query)["host"]
            cable = stack.enter_context(relay(f"{folder}/.s.PGSQL.5432", str(port)))
            through, shown = f"postgresql://lobu@127.0.0.1:{cable.ports[0]}/postgres", cable.ports[1]
        links = f'[links]\nlisten = "127.0.0.1:{port}"\nadvertise = "ws://127.0.0.1:{shown}"\n'
        reads = stack.enter_context(own_server(config, database_url=database, environment=SHARED))
        works = stack.enter_context(own_server(config + links, database_url=through, environment=SHARED))
        yield Pair(works, reads, cable, database)

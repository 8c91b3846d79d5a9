"""A store with many conversations beside one with few: does anything take longer, and how long is a start?

Both servers stand beside each other on their own databases, and what is measured alternates between them, so that a
drift of the machine favours neither. The rows are copies of those that one real turn has left, under other ids.

Those that are active: a message of each is owed when the server is killed, under a lease of the host that is gone. So a
start finds them all to be done, and behind it each has its actor and its worker.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import psycopg

from benchmarks import floors
from benchmarks.generator import generate
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.restart import IMPORTS
from benchmarks.results import Figure, Latency, Result
from benchmarks.server import AGENTS, FORKED, LIMITS, Server, own_database, own_server

WHAT = "100,000 conversations in the store, 1,000 of them active, beside 100: a start, a turn, an accept, a look"
FEW, MANY, SHORT_MANY = (100, 1), (100_000, 1000), (2_000, 10)  # conversations, active ones
STARTS, ROUNDS = 3, 4
TURNS, LOOKS, SHORT = 100, 20, 5  # a round
READERS, FEW_READERS = 100, 10
ACCEPT_SECONDS, SHORT_ACCEPT_SECONDS, WRITERS = 3.0, 0.5, 8
TEMPLATE = "template"
# Those that are active have a worker each, and what is measured needs a few more.
CONFIG = LIMITS.replace("max_workers = 1000", "max_workers = 1100") + AGENTS
DONE_SECONDS = 120.0

COPIED = ("conversation", "turn", "run", "conversation_event", "transcript_segment", "actor_lease")
# A row as JSON, its ids replaced wherever they stand, as a row again; whatever columns there are.
COPY = """
WITH one AS MATERIALIZED (SELECT to_jsonb(r)::text AS row FROM {table} r WHERE {column} = %(name)s)
INSERT INTO {table}
SELECT copy.* FROM one, generate_series(1, %(number)s) n,
    LATERAL jsonb_populate_record(NULL::{table}, {replaced}::jsonb) copy
"""
IDS = """
SELECT t.conversation_id, t.turn_id, t.message_id, m.run_id FROM turn t
JOIN run m ON t.turn_id = ANY (m.turn_ids) WHERE t.conversation_id = %(name)s
"""
OWE = """
WITH asked AS (
    INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
        first_seq)
    SELECT c.organization_id, %(mark)s || c.conversation_id, c.agent_id, c.conversation_id, %(mark)s, 'hello',
        'enqueue', 0, c.next_event_seq - 1
    FROM conversation c, generate_series(1, %(number)s) n WHERE c.conversation_id = 'filled-' || n
    RETURNING *)
INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)
SELECT organization_id, turn_id, agent_id, conversation_id, accepted_at, accepted_at FROM asked
"""
# As conversations that nobody has talked to for a while leave them.
GIVE_BACK = "UPDATE actor_lease SET host_id = NULL WHERE kind = 'conversation' AND key LIKE 'filled-%'"
HOLD = """
UPDATE actor_lease SET epoch = epoch + 1, host_id = (SELECT host_id FROM host ORDER BY started_at DESC LIMIT 1)
WHERE kind = 'conversation' AND key IN (SELECT 'filled-' || n FROM generate_series(1, %(number)s) n)
"""


@attrs.define
class House:
    """One server with its store. `start`: seconds; `done`: until all that was owed had its end, from the ready on."""

    number: int
    active: int
    server: Server
    start: Histogram = attrs.field(factory=Histogram)
    done: Histogram = attrs.field(factory=Histogram)

    @property
    def name(self) -> str:
        return f"{self.number:,} conversations, {self.active:,} active"

    def fill(self) -> None:
        conversation = Conversation(self.server.port, self.server.key, TEMPLATE, FORKED)
        conversation.send("hello")
        conversation.wait_for("complete")
        name = conversation.path.rpartition("/")[2]
        conversation.close()
        self.server.kill_all()
        with psycopg.connect(self.server.database_url, autocommit=True) as database:
            [ids] = database.execute(IDS, {"name": name}).fetchall()
            replaced = "one.row"
            for kind, one in zip(("filled", "t", "m", "r"), ids, strict=True):
                replaced = f"replace({replaced}, '\"{one}\"', '\"{kind}-' || n || '\"')"
            for table in COPIED:
                column = "key" if table == "actor_lease" else "conversation_id"
                text = COPY.format(table=table, replaced=replaced, column=column)
                database.execute(text, {"number": self.number, "name": name})
            database.execute(GIVE_BACK)
            database.execute("VACUUM ANALYZE")

    def start_again(self) -> None:
        """Killed, with a message of each active conversation owed."""
        self.server.kill_all()
        with psycopg.connect(self.server.database_url, autocommit=True) as database:
            mark = {"number": self.active, "mark": f"{time.time_ns()}-"}
            database.execute(HOLD, {"number": self.active})
            database.execute(OWE, mark)
            begun = time.perf_counter()
            self.server.start()
            ready = time.perf_counter()
            self.start.record(ready - begun)
            while database.execute("SELECT EXISTS (SELECT 1 FROM turn_marker)").fetchone() != (False,):
                if time.perf_counter() - ready > DONE_SECONDS:
                    raise RuntimeError("what was owed at a start did not come to its end")
                time.sleep(0.1)
            self.done.record(time.perf_counter() - ready)


@contextmanager
def _house(number: int, active: int) -> Iterator[House]:
    with own_database() as database, own_server(CONFIG, database_url=database) as server:
        house = House(number, active, server)
        house.fill()
        yield house


def measure(bench: Bench) -> Result:
    bench.own_only("filled")
    sizes = (FEW, SHORT_MANY if bench.quick else MANY)
    starts = bench.often(STARTS, 1)
    with ExitStack() as held:
        houses = []
        for number, active in sizes:
            bench.progress(f"filled: {number:,} conversations are made")
            houses.append(held.enter_context(_house(number, active)))
        started = floors.start_of(IMPORTS, 1 if bench.quick else 3)
        for time_ in range(starts):
            for house in houses:
                bench.progress(f"filled: {house.name}, start {time_ + 1} of {starts}")
                house.start_again()
        latencies = [_latency("start", house, house.start, started) for house in houses]
        request = floors.loopback_request(bench.floors)
        found: dict[str, list[Histogram]] = {}
        for what, once in _paths(bench).items():
            found[what] = [Histogram() for _ in houses]
            for round_ in range(1 if bench.quick else ROUNDS):
                for house, into in zip(houses, found[what], strict=True):
                    bench.progress(f"filled: {house.name}, {what}, round {round_ + 1}")
                    into.add(once(house.server))
            latencies += [_latency(what, *of, request) for of in zip(houses, found[what], strict=True)]
    found["start"] = [house.start for house in houses]
    figures = [_ratio(what, of, houses) for what, of in found.items()]
    figures += [
        Figure(f"{one.name}, all that was owed has ended after", one.done.percentile(50), "s") for one in houses
    ]
    return Result("filled", WHAT, {"conversations": sizes[1][0], "active": sizes[1][1]}, latencies, figures)


def _latency(what: str, house: House, found: Histogram, floor: Sequence[float]) -> Latency:
    parts = {"start with imports" if what == "start" else "request": sorted(floor)[len(floor) // 2]}
    return Latency(f"{what}, {house.name}", found, parts)


def _ratio(what: str, found: Sequence[Histogram], houses: Sequence[House]) -> Figure:
    few, many = (one.percentile(50) for one in found)
    return Figure(f"{what}, p50 with {houses[1].number:,} to that with {houses[0].number:,}", many / few, "times")


def _paths(bench: Bench) -> dict[str, Callable[[Server], Histogram]]:
    """In an order in which none leaves behind what the next one would be slower by."""
    turns, looks = (SHORT, SHORT) if bench.quick else (TURNS, LOOKS)
    readers = FEW_READERS if bench.quick else READERS
    seconds = SHORT_ACCEPT_SECONDS if bench.quick else ACCEPT_SECONDS

    def run(plan: str, **settings: Any) -> Callable[[Server], Histogram]:
        return lambda server: Histogram.decode(
            generate(server.url, server.key, plan, agent=FORKED, **settings)["histogram"]
        )

    return {
        "warm turn": run("turns", conversations=1, turns=turns, rate=0.0, warm=3, content="hello"),
        "resume": run("resume", readers=readers, readers_each=5, rounds=2),
        "look": lambda server: _looked(server, looks),
        "accept": run("accept", conversations=WRITERS, seconds=seconds),
    }


def _looked(server: Server, looks: int) -> Histogram:
    """To the first frame of the operations stream."""
    found = Histogram()
    head = f"GET /api/v1/ops/events HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {server.key}\r\n\r\n".encode()
    for _ in range(looks):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            begun, got = time.perf_counter(), b""
            connection.sendall(head)
            while b"event: house\n" not in got:
                got += connection.recv(1 << 16)
            found.record(time.perf_counter() - begun)
    return found

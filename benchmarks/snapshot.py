"""A session that grows from 1 kB to 20 MB: what a turn costs at each size, in bytes written and in time.

Bytes are measured in the database: those of the turn's segment, and those that its write-ahead log grew by from one
turn's end to the next (all of a turn's statements, and whatever the server wrote meanwhile on its own).
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import attrs
import psycopg
import trio

from benchmarks import floors
from benchmarks.histogram import Histogram
from benchmarks.http import Conversation
from benchmarks.kinds import Bench
from benchmarks.results import Curve, Figure, Latency, Result
from benchmarks.server import EXECUTED, Server, own_server
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres import PostgresStore
from supervisor.workspaces.workspace import HostWorkspaces

WHAT = "a turn of a session that grows from 1 kB to 20 MB: bytes and time; and to put the session in place elsewhere"
BEGIN_BYTES, END_BYTES = 1000, 20_000_000
FEW_BYTES = 200_000
TURNS, FEW_TURNS = 1000, 20
WINDOW = 20  # turns around a size, of which the median is given
STEP = 50
LEAST_BYTES = 10  # of a message
HYDRATIONS = 9
SEED = 1

Progress = Callable[[str], None]


def measure(bench: Bench) -> Result:
    bench.own_only("snapshot")
    turns, end = bench.often(TURNS, FEW_TURNS), FEW_BYTES if bench.quick else END_BYTES
    with (
        own_server() as server,
        floors.Beside({"commit": lambda: floors.commit(server.database_url, bench.floors)}) as beside,
    ):
        grown = _grow(server, turns, end, bench.progress)
    return grown.result(turns, end, beside.medians()["commit"])


@attrs.frozen
class Growth:
    """Of each turn: seconds from request to terminal event, bytes of its segment and of the log, the file's length.

    `hydrations`: seconds to read the last snapshot and put it in place as a file, in as many segments as there were
    turns, and in one (`compacted`).
    """

    seconds: Sequence[float]
    written: Sequence[int]
    logged: Sequence[int]
    lengths: Sequence[int]
    hydrations: Sequence[float]
    compacted: Sequence[float]

    def result(self, turns: int, end: int, commit: float) -> Result:
        first, last = self._at(BEGIN_BYTES), self._at(end)
        megabytes = self.lengths[-1] / 1e6
        figures = [
            Figure("last to first turn, bytes of the segment", last.segment / first.segment, "times"),
            Figure("last to first turn, bytes of the write-ahead log", last.log / first.log, "times"),
            Figure("last to first turn, time", last.seconds / first.seconds, "times"),
            Figure("segment of a turn at the end", last.segment / 1e3, "kB"),
            Figure("write-ahead log of a turn at the end", last.log / 1e3, "kB"),
            Figure(f"hydrate {megabytes:.1f} MB from {turns} segments, p50", median(self.hydrations) * 1e3, "ms"),
            Figure(f"hydrate {megabytes:.1f} MB from one segment, p50", median(self.compacted) * 1e3, "ms"),
        ]
        half = len(self.seconds) // 2
        latencies = [
            Latency("a turn of the first half", Histogram(self.seconds[:half]), {"2 commits": 2 * commit}),
            Latency("a turn of the second half", Histogram(self.seconds[half:]), {"2 commits": 2 * commit}),
        ]
        return Result("snapshot", WHAT, {"turns": turns, "end_bytes": end}, latencies, figures, self._curves())

    def _curves(self) -> list[Curve]:
        below = f"length of the session file, MB ({len(self.seconds)} turns, medians of {self._window})"
        return [
            Curve(
                "Bytes written per turn while a session grows",
                below,
                "kB per turn",
                {
                    "write-ahead log: message, reply, segment, and all else": self._line(self.logged, 1e3),
                    "snapshot segment": self._line(self.written, 1e3),
                },
            ),
            Curve("Time per turn while a session grows", below, "ms", {"turn": self._line(self.seconds, 1e-3)}),
        ]

    def _line(self, values: Sequence[float], unit: float) -> list[tuple[float, float]]:
        """Medians of neighbours: single turns meet a checkpoint or another process."""
        half = self._window // 2
        return [
            (self.lengths[n] / 1e6, median(values[max(n - half, 0) : n + half + 1]) / unit)
            for n in [*range(0, len(values) - 1, max(half, 1)), len(values) - 1]
        ]

    @property
    def _window(self) -> int:
        return max(min(WINDOW, len(self.seconds) // 2), 1)

    def _at(self, size: int) -> Turn:
        """The turns around the one at which the session had this size."""
        last = len(self.lengths) - self._window
        begin = next((n for n, length in enumerate(self.lengths) if length >= size), len(self.lengths))
        begin = min(max(begin - self._window // 2, 0), last)
        part = slice(begin, begin + self._window)
        return Turn(median(self.written[part]), median(self.logged[part]), median(self.seconds[part]))


@attrs.frozen
class Turn:
    """Bytes of its segment and of the log, and seconds."""

    segment: float
    log: float
    seconds: float


def _grow(server: Server, turns: int, end: int, progress: Progress) -> Growth:
    """A conversation from 1 kB to `end` bytes in turns of one size."""
    conversation = Conversation(server.port, server.key, f"snapshot-{time.time_ns()}", EXECUTED)
    name = conversation.path.rpartition("/")[2]
    noise = random.Random(SEED)
    with psycopg.connect(server.database_url, autocommit=True) as database:
        conversation.send("hello")
        conversation.wait_for("complete")
        [(hello, _)] = _segments(database, name)
        filling = _text(noise, (BEGIN_BYTES - 2 * hello) // 2)
        conversation.send(filling)
        conversation.wait_for("complete")
        *_, (filled, length) = before = _segments(database, name)
        overhead = filled - 2 * len(filling)  # of one turn, beside its message, which comes back from the worker
        size = (end - length) // turns - overhead
        taken, logged = [], []
        position = _log_position(database)
        for number in range(turns):
            content = _text(noise, size // 2)
            begun = time.perf_counter()
            conversation.send(content)
            conversation.wait_for("complete")
            taken.append(time.perf_counter() - begun)
            now = _log_position(database)
            logged.append(now - position)
            position = now
            if number % STEP == 0:
                progress(f"snapshot: {number} of {turns} turns")
        rows = _segments(database, name)[len(before) :]
    conversation.close()
    if len(rows) != len(taken):
        raise RuntimeError(f"{len(taken)} turns left {len(rows)} segments; was the session compacted meanwhile?")
    hydrations, compacted = trio.run(_hydrate, server, ConversationRef("local", EXECUTED, name))
    return Growth(taken, [row[0] for row in rows], logged, [row[1] for row in rows], hydrations, compacted)


def _segments(database: psycopg.Connection[Any], name: str) -> list[tuple[int, int]]:
    return database.execute(
        "SELECT octet_length(data), total_length FROM transcript_segment WHERE conversation_id = %s ORDER BY seq",
        (name,),
    ).fetchall()


def _log_position(database: psycopg.Connection[Any]) -> int:
    [(position,)] = database.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchall()
    return int(position)


def _text(noise: random.Random, size: int) -> str:
    """One word that no compression makes short."""
    size = max(size, LEAST_BYTES)
    return base64.b64encode(noise.randbytes(size)).decode()[:size]


async def _hydrate(server: Server, ref: ConversationRef) -> tuple[list[float], list[float]]:
    """As when a conversation comes to a host: the snapshot is read, checked and put in place, fsynced."""
    store = PostgresStore.connect(server.database_url)
    workspaces = HostWorkspaces(server.folder / "hydrate")
    workspace = workspaces.of(ref)

    async def times() -> list[float]:
        found = []
        for _ in range(HYDRATIONS):
            await workspace.prepare()
            begun = time.perf_counter()
            await workspace.write_session(await store.read_snapshot(ref))
            found.append(time.perf_counter() - begun)
            await workspace.remove()
        return found

    try:
        many = await times()
        await store.compact(ref)
        return many, await times()
    finally:
        workspaces.close()
        store.close()

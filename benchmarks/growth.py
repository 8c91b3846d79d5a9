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

from benchmarks.http import Conversation
from benchmarks.plot import line_plot
from benchmarks.server import Server
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres import PostgresStore
from supervisor.workspaces.workspace import HostWorkspaces

BEGIN_BYTES, END_BYTES = 1000, 20_000_000
SIZES = (BEGIN_BYTES, 1_000_000, 5_000_000, 10_000_000, 15_000_000, END_BYTES)
WINDOW = 20  # turns around a size, of which the median is given
STEP = 50
LEAST_BYTES = 10  # of a message
HYDRATIONS = 9
SEED = 1

Progress = Callable[[str], None]


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

    def as_json(self) -> dict[str, Any]:
        at = [self._at(size) for size in SIZES]
        return {
            "name": "snapshot",
            "what": "a turn of a session that grows",
            "repetitions": len(self.seconds),
            "window": self._window,
            "first_bytes": self.lengths[0] - self.written[0],
            "last_bytes": self.lengths[-1],
            "at": at,
            **{f"{name}_ratio": round(at[-1][name] / at[0][name], 2) for name in ("segment_bytes", "wal_bytes", "ms")},
            "hydrate_ms": round(median(self.hydrations) * 1e3, 1),
            "hydrate_segments": len(self.written),
            "hydrate_compacted_ms": round(median(self.compacted) * 1e3, 1),
        }

    def as_text(self) -> str:
        found = self.as_json()
        rows = "".join(
            f"\n  {one['session_bytes']:>13} {one['segment_bytes']:>14} {one['wal_bytes']:>12} {one['ms']:>10.2f}"
            for one in found["at"]
        )
        return (
            f"snapshot: {found['what']}, from {found['first_bytes']} to {found['last_bytes']} bytes in "
            f"{found['repetitions']} turns (medians of {found['window']})\n"
            f"  session bytes  segment bytes    WAL bytes         ms{rows}\n"
            f"     last/first {found['segment_bytes_ratio']:>14.2f} {found['wal_bytes_ratio']:>12.2f} "
            f"{found['ms_ratio']:>10.2f}\n"
            f"  hydrate {found['last_bytes']} bytes: p50 {found['hydrate_ms']:.0f} ms from "
            f"{found['hydrate_segments']}+ segments, {found['hydrate_compacted_ms']:.0f} ms from one"
        )

    def as_svg(self) -> str:
        def line(values: Sequence[float], unit: float) -> list[tuple[float, float]]:
            """Medians of neighbours: single turns meet a checkpoint or another process."""
            half = self._window // 2
            return [
                (self.lengths[n] / 1e6, median(values[max(n - half, 0) : n + half + 1]) / unit)
                for n in [*range(0, len(values) - 1, max(half, 1)), len(values) - 1]
            ]

        return line_plot(
            f"Bytes written per turn while a session grows to {self.lengths[-1] / 1e6:.0f} MB",
            f"length of the session file, MB ({len(self.seconds)} turns)",
            f"kB per turn (medians of {self._window} turns)",
            {
                "write-ahead log: message, reply, segment, and all else": line(self.logged, 1e3),
                "snapshot segment": line(self.written, 1e3),
            },
        )

    @property
    def _window(self) -> int:
        return min(WINDOW, len(self.seconds) // 2)

    def _at(self, size: int) -> dict[str, Any]:
        """The turns around the one at which the session had this size; `session_bytes` is before the first of them."""
        last = len(self.lengths) - self._window
        begin = next((n for n, length in enumerate(self.lengths) if length >= size), len(self.lengths))
        begin = min(max(begin - self._window // 2, 0), last)
        part = slice(begin, begin + self._window)
        return {
            "session_bytes": self.lengths[begin] - self.written[begin],
            "segment_bytes": round(median(self.written[part])),
            "wal_bytes": round(median(self.logged[part])),
            "ms": round(median(self.seconds[part]) * 1e3, 3),
        }


def snapshot(server: Server, turns: int, progress: Progress) -> Growth:
    """A conversation from 1 kB to 20 MB in turns of one size: what is written and waited for should not grow."""
    conversation = Conversation(server.port, server.key, f"snapshot-{time.time_ns()}")
    name = conversation.path.rpartition("/")[2]
    noise = random.Random(SEED)
    with psycopg.connect(server.database_url(), autocommit=True) as database:
        conversation.send("hello")
        conversation.wait_for("complete")
        [(hello, _)] = _segments(database, name)
        filling = _text(noise, (BEGIN_BYTES - 2 * hello) // 2)
        conversation.send(filling)
        conversation.wait_for("complete")
        *_, (filled, length) = before = _segments(database, name)
        overhead = filled - 2 * len(filling)  # of one turn, beside its message, which comes back from the worker
        size = (END_BYTES - length) // turns - overhead
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
    hydrations, compacted = trio.run(_hydrate, server, ConversationRef("local", "echo", name))
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
    store = PostgresStore.connect(server.database_url())
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

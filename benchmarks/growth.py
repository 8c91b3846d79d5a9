"""A session that grows: what one turn costs at its beginning and at its end, in time and in bytes written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import attrs
import psycopg

from benchmarks.http import Conversation
from benchmarks.plot import line_plot
from benchmarks.server import Server

BEGIN_BYTES, END_BYTES = 1000, 20_000_000
WARM_UP, WINDOW, STEP = 5, 100, 50
LEAST_BYTES = 10  # of a message

Progress = Callable[[str], None]


@attrs.frozen
class Growth:
    """Of each turn: seconds from request to terminal event, bytes of its segment, the file's length behind it."""

    seconds: Sequence[float]
    written: Sequence[int]
    lengths: Sequence[int]

    def as_json(self) -> dict[str, Any]:
        window = min(WINDOW, len(self.seconds) // 2)
        first_ms, last_ms = (median(part) * 1e3 for part in (self.seconds[:window], self.seconds[-window:]))
        first, last = (median(part) for part in (self.written[:window], self.written[-window:]))
        return {
            "name": "snapshot",
            "what": "a turn of a session that grows",
            "repetitions": len(self.seconds),
            "window": window,
            "first_bytes": self.lengths[0],
            "last_bytes": self.lengths[-1],
            "first_ms": round(first_ms, 3),
            "last_ms": round(last_ms, 3),
            "time_ratio": round(last_ms / first_ms, 2),
            "first_written": first,
            "last_written": last,
            "written_ratio": round(last / first, 2),
        }

    def as_text(self) -> str:
        found = self.as_json()
        return (
            f"snapshot: {found['what']}, from {found['first_bytes']} to {found['last_bytes']} bytes in "
            f"{found['repetitions']} turns\n"
            f"  time of a turn: first {found['window']} p50 {found['first_ms']:.2f} ms   last {found['window']} p50 "
            f"{found['last_ms']:.2f} ms   ratio {found['time_ratio']:.2f}\n"
            f"  bytes written:  first {found['window']} p50 {found['first_written']:.0f}   last {found['window']} p50 "
            f"{found['last_written']:.0f}   ratio {found['written_ratio']:.2f}"
        )

    def as_svg(self) -> str:
        lengths = [length / 1e6 for length in self.lengths]
        return line_plot(
            "A turn of a session that grows",
            "session file, MB",
            "ms a turn, kB written a turn",
            {
                "ms": [*zip(lengths, (taken * 1e3 for taken in self.seconds), strict=True)],
                "kB": [*zip(lengths, (size / 1e3 for size in self.written), strict=True)],
            },
        )


def snapshot(server: Server, turns: int, progress: Progress) -> Growth:
    """A conversation from 1 kB to 20 MB in turns of one size: what is written and waited for should not grow."""
    conversation = Conversation(server.port, server.key, f"snapshot-{time.time_ns()}")
    each = (END_BYTES - BEGIN_BYTES) // turns
    content = "x" * max(each // 2, LEAST_BYTES)  # comes back from the worker, and is written twice
    taken = []
    for number in range(WARM_UP + turns):
        begun = time.perf_counter()
        conversation.send("hello" if number < WARM_UP else content)
        conversation.wait_for("complete")
        taken.append(time.perf_counter() - begun)
        if number % STEP == 0:
            progress(f"snapshot: {number} of {WARM_UP + turns} turns")
    conversation.close()
    with psycopg.connect(server.database_url(), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT octet_length(data), total_length FROM transcript_segment WHERE conversation_id = %s ORDER BY seq",
            (conversation.path.rpartition("/")[2],),
        ).fetchall()
    if len(rows) != len(taken):
        raise RuntimeError(f"{len(taken)} turns left {len(rows)} segments; was the session compacted meanwhile?")
    return Growth(taken[WARM_UP:], [size for size, _ in rows[WARM_UP:]], [length for _, length in rows[WARM_UP:]])

"""The load generator's readers of one reply: when each piece came, and whether all of it did, in order.

What a reader lacks, has twice or was told to begin anew is counted, not guessed from sums: the bytes of a reply are the
same for all, so each reader's checksum has to be the others'.
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4
from zlib import crc32

from benchmarks.histogram import Histogram
from benchmarks.talk import TERMINALS, WAIT_SECONDS, Json, Share, Talk, all_of, content_of, event_of
from benchmarks.wire import Place, Reader

SLOW_SECONDS = 0.05  # that a slow reader rests after each few kilobytes


class Follower:
    """One reader of the reply. `began_anew`: times that it was told of a gap, or that its text is void."""

    def __init__(self, found: Histogram | None) -> None:
        self.attached = asyncio.Event()
        self.ended = asyncio.Event()
        self.pieces = self.frames = self.began_anew = 0
        self.checksum = 0
        self._rest = b""
        self.reader = Reader(self._frame, 0.0 if found is not None else SLOW_SECONDS)
        self._found = found

    def _frame(self, frame: bytes, arrived: float) -> None:
        event = event_of(frame)
        if event == b"output":
            content = content_of(frame)
            self.checksum = crc32(content, self.checksum)
            self.frames += 1
            *stamps, self._rest = (self._rest + content).split(b" ")  # a frame may end within a piece
            self.pieces += len(stamps)
            if self._found is not None:
                for stamp in stamps:
                    self._found.record(arrived - int(stamp) / 1e9)
        elif event == b"connected":
            self.attached.set()
        elif event in TERMINALS:
            self.ended.set()
        elif event in (b"gap", b"restart"):
            self.began_anew += 1


async def stream(place: Place, plan: Json) -> Json:
    """`readers` of one reply of `pieces`, each piece made with the time on it, `delay_ms` apart; `slow` more readers
    rest after each few kilobytes. `beside`: another conversation takes one turn after another meanwhile."""
    talk = await Talk.open(place, plan["agent"])
    other = await Talk.open(place, plan["agent"]) if plan.get("beside") else None
    if other is not None:
        await other.ask("hello")
    found, beside, share = Histogram(), Histogram(), Share()
    fast = [Follower(found) for _ in range(plan["readers"])]
    slow = [Follower(None) for _ in range(plan["slow"])]
    path = f"{talk.path}/events"
    await all_of([lambda one=one: one.reader.open(place, path, talk.token) for one in fast + slow])  # type: ignore[misc]
    async with asyncio.timeout(WAIT_SECONDS):
        for one in fast + slow:
            await one.attached.wait()
    async with share:
        await talk.send(f"stamp {plan['pieces']} {plan['delay_ms']}", uuid4().hex)
        async with asyncio.timeout(WAIT_SECONDS):
            if other is not None:
                await _turns(other, fast, beside)
            for one in fast:
                await one.ended.wait()
    async with asyncio.timeout(WAIT_SECONDS):  # a slow reader may lose what no log has, never the end
        for one in slow:
            await one.ended.wait()
    for one in fast + slow:
        one.reader.close()
    for each in (talk, other):
        if each is not None:
            each.close()
    return {
        "histogram": found.encode(),
        "beside": beside.encode() if other is not None else None,
        "stamps": sum(one.pieces for one in fast),
        "frames": sum(one.frames for one in fast),
        "bytes": sum(one.reader.bytes for one in fast + slow),
        "complete": sum(one.pieces == plan["pieces"] and one.checksum == fast[0].checksum for one in fast),
        "began_anew": sum(one.began_anew for one in fast),
        **share.found(),
    }


async def _turns(talk: Talk, readers: list[Follower], found: Histogram) -> None:
    while not all(one.ended.is_set() for one in readers):
        begun = time.perf_counter()
        found.record(await talk.ask("hello") - begun)

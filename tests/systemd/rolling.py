"""Rolling restarts of edges and supervisor under clients that stream, in a real systemd.

`python -m tests.systemd.rolling`; a short form is part of the tests. Each round restarts every edge, one after the
other, and then the supervisor, as `lobu rollout run` does. Exit code 1 when a connection was refused, a turn did not
complete in its first attempt, a client holds another text than the worker wrote, or `lobu audit` finds something.

Printed is what the reader of a running reply sees of it: how long nothing came, where it had to connect again and
where it did not.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import attrs
import psycopg
import trio

from tests.system.audit import broken_promises
from tests.system.sse_client import Broken, Conversation, EventStream, Frame, Transcript
from tests.systemd import harness
from tests.systemd.installed import LOBU, Lobu, installed
from tests.verdict import verdict

WORDS, MILLISECONDS = 300, 20
LONG_TEXT = "".join(f"word{number} " for number in range(WORDS))
ROUND_SECONDS = 180.0
TURN_SECONDS = 120.0
PAUSE_SECONDS = 0.25
_T = TypeVar("_T")


@attrs.frozen
class Options:
    rounds: int = 50
    clients: int = 50
    seed: int = 0


@attrs.define
class Report:
    rounds: int = 0
    completed: int = 0
    connections: int = 0
    refused: int = 0
    resumes: list[float] = attrs.field(factory=list)  # seconds
    ends: list[float] = attrs.field(factory=list)  # of a resume: from the last frame until the stream was over
    heads: list[float] = attrs.field(factory=list)  # from there until another edge answered the next request for it
    firsts: list[float] = attrs.field(factory=list)  # from there until the first frame
    pauses: list[float] = attrs.field(factory=list)  # seconds
    cuts: Counter[str] = attrs.field(factory=Counter)  # how a connection ended that was repeated
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0


class _Timed(Transcript):
    """Notes how long the reader of a running reply saw nothing: across two connections, or on one of them."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self._last = ("", 0, 0.0)  # message id, connection, seconds
        self.ended_at = self.head_at = 0.0

    def take(self, frame: Frame) -> None:
        if "messageId" in frame.data:
            message_id, connection, at = self._last
            self._last = (str(frame.data["messageId"]), self.connections, time.monotonic())
            gap = self._last[2] - at
            if message_id != self._last[0]:
                pass  # between two turns
            elif connection != self.connections:
                self._report.resumes.append(gap)
                self._report.ends.append(self.ended_at - at)
                self._report.heads.append(self.head_at - self.ended_at)
                self._report.firsts.append(self._last[2] - self.head_at)
            elif gap > PAUSE_SECONDS:
                self._report.pauses.append(gap)
        super().take(frame)


@attrs.frozen
class _Watched(Conversation):
    """Counts connections that were refused, and notes when each began and was over."""

    report: Report
    reader: _Timed

    @asynccontextmanager
    async def events(self, **words: Any) -> AsyncIterator[EventStream]:
        try:
            async with Conversation.events(self, **words) as stream:
                self.reader.head_at = time.monotonic()
                yield stream
        except Broken as error:
            _count(self.report, error)
            raise
        finally:
            if self.reader.head_at > self.reader.ended_at:
                self.reader.ended_at = time.monotonic()


class Campaign:
    def __init__(self, lobu: Lobu, options: Options) -> None:
        self.lobu = lobu
        self.options = options
        self.report = Report()
        self._random = random.Random(options.seed)
        self._over = False

    async def go(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self.options.clients):
                nursery.start_soon(self._talk)
            while self.report.rounds < self.options.rounds:
                await self.lobu.machine.run(LOBU, "rollout", "run", seconds=ROUND_SECONDS)
                self.report.rounds += 1
            self._over = True

    async def _talk(self) -> None:
        """One turn after another in a conversation of its own, until the last round is done."""
        opened = await self._tried(self.lobu.client.open)
        transcript = _Timed(self.report)
        conversation = _Watched(opened.client, opened.key, self.report, transcript)
        while not self._over:
            message_id = f"m{self._random.getrandbits(64):x}"
            await self._tried(partial(conversation.send, f"stream {WORDS} {MILLISECONDS}", message_id))
            with trio.move_on_after(TURN_SECONDS) as scope:
                await transcript.follow(conversation, partial(transcript.terminals.get, message_id))
            if scope.cancelled_caught:
                self.report.faults.append(f"{message_id}: no end within {TURN_SECONDS:g} s")
                return
            self._judge(transcript, message_id)
        self.report.connections += transcript.connections
        self.report.faults += transcript.faults

    def _judge(self, transcript: Transcript, message_id: str) -> None:
        frame = transcript.terminals[message_id]
        if frame.event != "complete":
            self.report.faults.append(f"{message_id}: {frame.event} {frame.data.get('errorCode', '')}")
        elif frame.data["finalText"] != LONG_TEXT or not LONG_TEXT.startswith(transcript.texts.get(message_id, "")):
            self.report.faults.append(f"{message_id}: the reader has another text than the worker wrote")
        else:
            self.report.completed += 1

    async def _tried(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """A request that is cut off is sent again: with the same message id it is the same turn."""
        while True:
            try:
                return await call()
            except Broken as error:
                _count(self.report, error)
                await trio.sleep(0.02)


def _count(report: Report, error: Broken) -> None:
    if "cannot connect" in str(error):
        report.refused += 1
    else:
        report.cuts[str(error)] += 1


async def roll(machine: harness.Machine, options: Options) -> Report:
    async with installed(machine) as lobu:
        campaign = Campaign(lobu, options)
        report, began = campaign.report, time.monotonic()
        await campaign.go()
        report.wall_seconds = time.monotonic() - began
        if report.refused:
            report.faults.append(f"{report.refused} connections were refused")
        report.faults += broken_promises(lobu.database_url)
        with psycopg.connect(lobu.database_url, autocommit=True) as connection:
            rows = connection.execute("SELECT message_id, attempt, status FROM turn WHERE attempt > 1").fetchall()
        report.faults += [f"{message_id} took {attempt} attempts ({status})" for message_id, attempt, status in rows]
        return report


def lines(report: Report) -> list[str]:
    return [
        f"rollouts              {report.rounds} in {report.wall_seconds:.0f} s, each of both edges and the supervisor",
        f"turns                 {report.completed} complete, in their first attempt",
        f"connections           {report.connections} streams, {report.refused} refused, {report.cuts.total()} repeated",
        *(f"  {how:19} {count} times" for how, count in report.cuts.most_common()),
        f"resume gap            {_shares(report.resumes)}: last frame of one connection to first of the next",
        f"  until it was over   {_shares(report.ends)}",
        f"  until an answer     {_shares(report.heads)}",
        f"  until a frame       {_shares(report.firsts)}",
        f"pause on a connection {_shares(report.pauses)}: of those over {PAUSE_SECONDS:g} s",
        *verdict(report.faults),
    ]


def share(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _shares(values: list[float]) -> str:
    return f"{len(values)} times, p50 {share(values, 0.5):.2f} s, p99 {share(values, 0.99):.2f} s"


async def _main(options: Options) -> Report:
    async with harness.machine() as machine:
        return await roll(machine, options)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.systemd.rolling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    parser.add_argument("--clients", type=int, default=Options().clients)
    words = parser.parse_args()
    if (why_not := harness.why_not()) is not None:
        sys.exit(why_not)
    report = trio.run(_main, Options(words.rounds, words.clients))
    print("\n".join(lines(report)))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()

"""A supervisor is killed again and again while long replies stream: each goes on in its first attempt.

`python -m tests.supervisor_kills`, or `make supervisor-kills`. Every kill is a SIGKILL to the main process of a real
`lobu run`, which is then started again in the same folder. Exit code 1 when a turn did not complete in its first
attempt, a client holds another text than the worker wrote, or `lobu audit` finds something; the last lines say which.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable

import attrs
import psycopg
import trio

from tests.system.audit import broken_promises
from tests.system.lobu_process import LobuRun, free_port, lobu_run, until
from tests.system.sse_client import Broken, Client, Conversation, Transcript
from tests.verdict import verdict

CONFIG = """
[limits]
drain_grace_seconds = 0.05
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[[agents]]
id = "echo"
worker = "echo"
default = true
"""
WORDS, MILLISECONDS = 400, 20  # a reply of eight seconds: several kills fall into it
LONG_TEXT = "".join(f"word{number} " for number in range(WORDS))


@attrs.frozen
class Options:
    kills: int = 200
    streams: int = 20
    bound_seconds: float = 1800.0
    seed: int = 0


@attrs.define
class Report:
    kills: int = 0
    completed: int = 0
    gaps: list[float] = attrs.field(factory=list)  # of one stream, from a kill to its next frame, in seconds
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0

    def gap(self, share: float) -> float:
        ordered = sorted(self.gaps)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Campaign:
    def __init__(self, run: LobuRun, options: Options) -> None:
        self.run = run
        self.options = options
        self.report = Report()
        self._killed_at: float | None = None
        self._opened = 0
        self._random = random.Random(options.seed)

    async def go(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self.options.streams):
                nursery.start_soon(self._talk)
            await self._kill_and_start()

    @property
    def over(self) -> bool:
        return self.report.kills >= self.options.kills

    async def _kill_and_start(self) -> None:
        await until(lambda: self._opened == self.options.streams, "all conversations are open")
        while not self.over:
            await trio.sleep(self._random.uniform(0.0, 1.0))
            self._killed_at = time.monotonic()
            await self.run.kill_main()
            self.report.kills += 1
            await self.run.start()

    async def _talk(self) -> None:
        """One conversation after another's turn, until the last kill is done."""
        conversation, transcript = await Client(self.run.url, self.run.admin_key).open(), Transcript()
        self._opened += 1
        while not self.over:
            message_id = await self._send(conversation)
            await self._follow(conversation, transcript, message_id)
        self.report.faults += transcript.faults

    async def _follow(self, conversation: Conversation, transcript: Transcript, message_id: str) -> None:
        seen_kill = self._killed_at

        def look() -> bool:
            nonlocal seen_kill
            if self._killed_at is not None and self._killed_at != seen_kill and self.run.is_up:
                seen_kill = self._killed_at
                self.report.gaps.append(time.monotonic() - self._killed_at)
            return message_id in transcript.terminals

        await transcript.follow(conversation, look)
        frame, seen = transcript.terminals[message_id], transcript.texts.get(message_id, "")
        if frame.event != "complete":
            self.report.faults.append(f"{message_id}: {frame.event} {frame.data.get('errorCode', '')}")
        elif frame.data["finalText"] != LONG_TEXT:
            self.report.faults.append(f"{message_id}: `complete` has another text: {_differs(frame.data['finalText'])}")
        elif not LONG_TEXT.startswith(seen):
            # Who was away at the end has the rest from `complete`; but never anything else.
            self.report.faults.append(f"{message_id}: the reader has {_differs(seen)}")
        else:
            self.report.completed += 1

    async def _send(self, conversation: Conversation) -> str:
        message_id = f"m{self._random.getrandbits(64):x}"
        while True:
            try:
                answer = await conversation.post(f"stream {WORDS} {MILLISECONDS}", message_id)
                if answer.status == 200:
                    return message_id
            except Broken:
                pass
            await trio.sleep(0.05)


async def kill_supervisors(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    async with lobu_run(config=CONFIG, arguments=("--port", str(free_port()))) as run:
        campaign = Campaign(run, options)
        began = time.monotonic()
        with trio.move_on_after(options.bound_seconds) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_show, campaign, progress)
                await campaign.go()
                nursery.cancel_scope.cancel()
        report = campaign.report
        report.wall_seconds = round(time.monotonic() - began, 1)
        if bound.cancelled_caught:
            report.faults.append(f"not done within {options.bound_seconds:g} s")
        report.faults += broken_promises(run.database_url)
        report.faults += _second_attempts(run.database_url)
        if (code := await run.stop()) != 0:
            report.faults.append(f"lobu run exited with {code}")
        report.faults += [f"left behind: {found.command}" for found in run.processes()]
    return report


def _differs(text: str) -> str:
    """Where it stops being what the worker wrote."""
    at = next(
        (i for i, (a, b) in enumerate(zip(text, LONG_TEXT, strict=False)) if a != b), min(len(text), len(LONG_TEXT))
    )
    return f"{len(text)} characters instead of {len(LONG_TEXT)}, from {at} on {text[at : at + 30]!r}"


def _second_attempts(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT message_id, attempt, status FROM turn WHERE attempt > 1").fetchall()
    return [f"{message_id} took {attempt} attempts ({status})" for message_id, attempt, status in rows]


async def _show(campaign: Campaign, progress: Callable[[str], None]) -> None:
    while True:
        await trio.sleep(5)
        report = campaign.report
        progress(
            f"{report.kills}/{campaign.options.kills} kills, {report.completed} replies, {len(report.faults)} faults"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.supervisor_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=Options().kills)
    parser.add_argument("--streams", type=int, default=Options().streams)
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    options = Options(words.kills, words.streams, seed=words.seed)
    report = trio.run(kill_supervisors, options, lambda line: print(line, flush=True))
    print(f"supervisor kills      {report.kills} in {report.wall_seconds} s")
    print(f"replies               {report.completed} complete, in their first attempt, of {WORDS} words each")
    if report.gaps:
        print(
            f"gap at the client     p50 {statistics.median(report.gaps):.2f} s, p99 {report.gap(0.99):.2f} s, "
            "from the kill to the next word, the new start included"
        )
    print("\n".join(verdict(report.faults)))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()

"""Postgres is away under load, with several hosts on it: nothing fails of that, and nothing runs where it must not.

`python -m tests.database_away`, or `make database-away`. Away means that it stands still, neither answering nor
refusing, and for as long again that it has crashed, and refuses until it was started again. Exit code 1 when a turn did
not complete in its first attempt, a client has another text than the worker wrote, or a worker acted at a time at which
its host could not be trusted: its lease was over by then, so another host might have taken over. Workers leave a trace
of every moment at which they act (tests/workers/stamping.py).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import trio

from tests.system.audit import broken_promises, turn_of
from tests.system.cluster import Database, database, hosts
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Client, Conversation, Transcript
from tests.verdict import verdict
from tests.workers.stamping import GO, STEP_SECONDS

TTL_SECONDS, MARGIN_SECONDS = 4.0, 1.0
WORKER = Path(__file__).parent / "workers" / "stamping.py"
CONFIG = f"""
[limits]
host_ttl_seconds = {TTL_SECONDS}
host_renew_seconds = 1
host_margin_seconds = {MARGIN_SECONDS}
[workers.stamping]
command = ["python", "{WORKER}"]
[[agents]]
id = "stamping"
worker = "stamping"
default = true
"""
BEFORE_SECONDS, AFTER_SECONDS = 1.0, 4.0  # of work before the outage, and left behind it
HOW = ("still", "gone")
START_SECONDS = 60.0
END_SECONDS = 90.0


@attrs.frozen
class Options:
    seconds: Sequence[float] = (2.0, 10.0, 60.0)
    hosts: int = 3
    running: int = 30
    queued: int = 2  # behind each of them
    how: Sequence[str] = HOW


@attrs.define
class Outage:
    """What came of one. All times are of the monotonic clock."""

    how: str
    seconds: float
    asked: float = 0.0  # for the database to be away
    began: float = 0.0  # by when it was
    ended: float = 0.0
    completed: int = 0
    acted_until: list[float] = attrs.field(factory=list)  # of each worker, seconds from when it was asked for
    acted_again: list[float] = attrs.field(factory=list)  # and behind it
    faults: list[str] = attrs.field(factory=list)

    def line(self) -> str:
        last, again = max(self.acted_until, default=0.0), max(self.acted_again, default=0.0)
        return (
            f"{self.how} for {self.seconds:g} s: {self.completed} turns complete in their first attempt; workers"
            f" acted for {last:.2f} s of it at most (trusted for {TTL_SECONDS - MARGIN_SECONDS:g} s, lease"
            f" {TTL_SECONDS:g} s), and all again {again:.2f} s behind it; {len(self.faults)} faults"
        )


class Talk:
    """One conversation: a turn that works for long, and some behind it; followed by a reader at some host."""

    def __init__(self, conversation: Conversation, seconds: float, queued: int) -> None:
        self.conversation = conversation
        self.transcript = Transcript()
        self.texts = {f"work {seconds} {conversation.key}": _steps(seconds)}
        self.texts |= {f"behind it {number}": f"behind it {number}" for number in range(queued)}
        self.messages: dict[str, str] = {}  # what it should be answered with

    async def send(self) -> None:
        for content, text in self.texts.items():
            self.messages[await self.conversation.send(content)] = text

    async def follow(self) -> None:
        await self.transcript.follow(
            self.conversation, lambda: self.messages.keys() <= self.transcript.terminals.keys()
        )

    def faults(self, url: str) -> list[str]:
        found = [f"{self.conversation.key}: {fault}" for fault in self.transcript.faults]
        for message_id, text in self.messages.items():
            frame = self.transcript.terminals.get(message_id)
            if frame is None:
                found.append(f"{message_id}: no end; {turn_of(url, message_id)}")
            elif frame.event != "complete" or frame.data["finalText"] != text:
                found.append(f"{message_id}: {frame.event} {frame.data}")
            elif (state := turn_of(url, message_id)) != ("completed", 1, 0):
                found.append(f"{message_id}: not in its first attempt: {state}")
        return found


def _steps(seconds: float) -> str:
    return "".join(f"step{number} " for number in range(0, round(seconds / STEP_SECONDS), 5))


async def go_away(runs: Sequence[LobuRun], server: Database, how: str, seconds: float, options: Options) -> Outage:
    outage, url = Outage(how, seconds), server.url
    work = BEFORE_SECONDS + TTL_SECONDS + AFTER_SECONDS
    talks = []
    for number in range(options.running):
        client = Client(runs[number % len(runs)].url, runs[0].admin_key)
        talks.append(Talk(await client.open(userId=f"{how}{seconds:g}-{number}"), work, options.queued))
    with trio.move_on_after(START_SECONDS + seconds + END_SECONDS):
        async with trio.open_nursery() as nursery:
            for talk in talks:
                nursery.start_soon(talk.send)
        await until(lambda: len(_traces(runs, talks)) == options.running, "all of them are at work", START_SECONDS)
        for path in _traces(runs, talks):
            path.with_name(GO).touch()
        async with trio.open_nursery() as nursery:
            for talk in talks:
                nursery.start_soon(talk.follow)
            await trio.sleep(BEFORE_SECONDS)
            outage.asked = time.monotonic()
            async with server.standing_still() if how == "still" else server.gone():
                outage.began = time.monotonic()
                await trio.sleep(seconds)
                outage.ended = time.monotonic()
    for talk in talks:
        faults = talk.faults(url)
        outage.completed += 0 if faults else len(talk.messages)
        outage.faults += faults
    _judge_traces(outage, _traces(runs, talks))
    outage.faults += broken_promises(url)
    return outage


def _traces(runs: Sequence[LobuRun], talks: Sequence[Talk]) -> dict[Path, list[float]]:
    """When which worker acted, oldest first."""
    keys = {talk.conversation.key for talk in talks}
    found = {}
    for run in runs:
        for path in (run.folder / ".lobu" / "workspaces").rglob("stamps-*"):
            if path.name.removeprefix("stamps-").rpartition("-")[0] in keys:
                stamps = [float(line) for line in path.read_text().split("\n")[:-1]]
                if stamps:
                    found[path] = stamps
    return found


def _judge_traces(outage: Outage, traces: dict[Path, list[float]]) -> None:
    """The last renewal came before the outage, so no lease lasts longer than TTL_SECONDS into it."""
    for path, stamps in traces.items():
        during = [stamp - outage.began for stamp in stamps if outage.began <= stamp <= outage.ended]
        acted = [stamp - outage.asked for stamp in stamps if outage.asked <= stamp <= outage.ended]
        outage.acted_until.append(acted[-1] if acted else 0.0)
        outage.acted_again += [stamp - outage.ended for stamp in stamps if stamp > outage.ended][:1]
        late = [since for since in during if since >= TTL_SECONDS]
        if late:
            outage.faults.append(
                f"{path.name} acted {len(late)} times when its host's lease was over, at {late[0]:.2f} s"
            )
    talks: dict[str, int] = {}
    for path in traces:
        name = path.name.rpartition("-")[0]
        talks[name] = talks.get(name, 0) + 1
    outage.faults += [f"{number} workers did {name}" for name, number in talks.items() if number > 1]


async def be_away(options: Options, progress: Callable[[str], None] = lambda line: None) -> list[Outage]:
    found = []
    async with database() as server, hosts(options.hosts, CONFIG, server.url) as runs:
        for how, seconds in itertools.product(options.how, options.seconds):
            found.append(await go_away(runs, server, how, seconds, options))
            progress(found[-1].line())
            if found[-1].faults:
                progress("\n".join(run.errors()[-3000:] for run in runs))
        for run in runs:
            if (code := await run.stop()) != 0:
                found[-1].faults.append(f"lobu run exited with {code}")
            found[-1].faults += [f"left behind: {process.command}" for process in run.processes()]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.database_away", description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=list(Options().seconds))
    parser.add_argument("--hosts", type=int, default=Options().hosts)
    parser.add_argument("--running", type=int, default=Options().running)
    parser.add_argument("--queued", type=int, default=Options().queued, help="behind each turn that runs")
    parser.add_argument("--how", choices=HOW, nargs="+", default=list(HOW))
    words = parser.parse_args()
    options = Options(words.seconds, words.hosts, words.running, words.queued, words.how)
    outages = trio.run(be_away, options, lambda line: print(line, file=sys.stderr, flush=True))
    faults = [fault for outage in outages for fault in outage.faults]
    print("\n".join(outage.line() for outage in outages))
    print("\n".join(verdict(faults)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

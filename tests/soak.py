"""The soak: thousands of turns from many clients while a random worker is killed every so often.

`python -m tests.soak`, or `make soak`. With `--hosts 3` on that many hosts with one database; then also a random
spawner, supervisor or whole host is killed, and started again. Exit code 1 when a promise is broken; the last lines say
which. What is checked at the clients, and then in the database: one terminal event for each accepted turn and none for
anything else, logs numbered without a gap, nothing owed and nothing live at the end, no process left after the stop.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import trio

from tests.system.audit import broken_promises
from tests.system.cluster import database, hosts
from tests.system.load import UNBOUNDED_SECONDS, Load
from tests.system.lobu_process import ECHO, LobuRun, lobu_run, until

# Five crashes a minute are a loop by default; here a worker dies several times a second, on purpose.
CONFIG = f"""
[limits]
crash_loop_crashes = 1000
{ECHO}"""
ENDLESS = 1_000_000
TARGETS = ("spawner", "supervisor", "host")
PROGRESS_SECONDS = 2.0


@attrs.frozen
class Options:
    turns: int = 2000
    conversations: int = 100
    clients: int = 20
    kill_every_seconds: float = 0.2
    host_kill_every_seconds: float = 1.0
    bound_seconds: float = 600.0
    seed: int = 0
    hosts: int = 1
    turns_between_kills: int = 0  # at least, however slow the machine is
    least_host_kills: int = 0  # there are as many turns more as these take


@attrs.define
class Report:
    accepted: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: dict[str, int] = attrs.field(factory=dict)
    duplicates: int = 0
    missing: int = 0
    reader_faults: list[str] = attrs.field(factory=list)
    log_faults: list[str] = attrs.field(factory=list)
    worker_kills: int = 0
    host_kills: dict[str, int] = attrs.field(factory=dict)  # of what else was killed, with several hosts
    reconnects: int = 0
    retried_posts: int = 0
    leftover_processes: int = 0
    exit_code: int | None = None
    in_time: bool = False
    wall_seconds: float = 0.0
    turns_per_second: float = 0.0

    def broken(self, options: Options) -> list[str]:
        """The promises that were not kept; empty when all is well."""
        found = [*self.reader_faults[:10], *self.log_faults]
        if not self.in_time:
            found.append(f"not done within {options.bound_seconds:g} s")
        if self.accepted < options.turns:
            found.append(f"{self.accepted} turns accepted of {options.turns}")
        if self.missing:
            found.append(f"{self.missing} accepted turns without a terminal event at their reader")
        if self.duplicates:
            found.append(f"{self.duplicates} terminal events too many")
        if self.leftover_processes:
            found.append(f"{self.leftover_processes} processes left behind")
        if self.exit_code != 0:
            found.append(f"lobu run exited with {self.exit_code}")
        return found


async def soak(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    report = Report()
    async with _runs(options.hosts) as (run, *others):
        turns = ENDLESS if options.least_host_kills else options.turns
        load = Load(run, turns, options.conversations, options.clients, seed=options.seed, others=others)
        hand = HostHand(load, options.host_kill_every_seconds, options.turns_between_kills)
        began = time.monotonic()
        with trio.move_on_after(options.bound_seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.kill_workers, options.kill_every_seconds, options.turns_between_kills)
                nursery.start_soon(_show, load, options, began, progress)
                if others:
                    nursery.start_soon(hand.go)
                if options.least_host_kills:
                    nursery.start_soon(_finish_in_time, load, hand, options)
                await load.go()
                report.in_time = True
                nursery.cancel_scope.cancel()
        report.wall_seconds = round(time.monotonic() - began, 2)
        _fill_in(report, load)
        report.host_kills = dict(sorted(hand.kills.items()))
        report.log_faults = broken_promises(run.database_url, accepted=load.accepted)
        codes = [await one.stop() for one in load.hosts]
        report.exit_code = next((code for code in codes if code != 0), 0)
        report.leftover_processes = sum(len(one.processes()) for one in load.hosts)
    return report


@asynccontextmanager
async def _runs(number: int) -> AsyncIterator[Sequence[LobuRun]]:
    """One with an embedded database, or several on one database."""
    if number == 1:
        async with lobu_run(config=CONFIG) as run:
            yield [run]
    else:
        async with database() as server, hosts(number, CONFIG, server.url) as runs:
            yield runs


async def _finish_in_time(load: Load, hand: HostHand, options: Options) -> None:
    await hand.until_killed(options.least_host_kills)
    await load.until_ended(options.turns)
    load.finish()


class HostHand:
    """Kills what makes a host, of any of them; what it ended is up again before the next kill."""

    def __init__(self, load: Load, every_seconds: float, turns_between: int) -> None:
        self.kills: Counter[str] = Counter()
        self._load = load
        self._every_seconds = every_seconds
        self._turns_between = turns_between

    async def go(self) -> None:
        random = self._load.random
        await until(lambda: len(self._load.transcripts) == self._load.conversations, "all conversations are open")
        while True:
            ended = len(self._load.terminals())
            await trio.sleep(random.uniform(0, 2 * self._every_seconds))
            await self._load.until_ended(ended + self._turns_between)
            target, run = random.choice(TARGETS), random.choice(self._load.hosts)
            with trio.CancelScope(shield=True):  # what was killed is up again when the soak ends
                await self._kill(target, run)
            self.kills[target] += 1

    async def until_killed(self, number: int) -> None:
        await until(lambda: self.kills.total() >= number, f"{number} kills", UNBOUNDED_SECONDS)

    async def _kill(self, target: str, run: LobuRun) -> None:
        if target == "spawner":
            if (pid := run.spawner_pid()) is not None:
                with suppress(ProcessLookupError):  # it may have ended by itself
                    os.kill(pid, signal.SIGKILL)
            return
        await (run.kill_main() if target == "supervisor" else run.kill_all())
        await run.start()


def _fill_in(report: Report, load: Load) -> None:
    counts = load.counts()
    ended = load.terminals()
    report.accepted = len(load.accepted)
    report.completed = counts.pop("complete", 0)
    report.cancelled = counts.pop("cancelled", 0)
    report.failed = dict(sorted(counts.items()))
    report.missing = len(load.missing())
    report.reader_faults = load.faults()
    report.duplicates = len(load.strange()) + sum("a second terminal" in fault for fault in report.reader_faults)
    report.worker_kills = load.kills
    report.reconnects = sum(transcript.connections for transcript in load.transcripts.values())
    report.retried_posts = load.retried_posts
    report.turns_per_second = round(len(ended) / max(report.wall_seconds, 0.001), 1)


async def _show(load: Load, options: Options, began: float, progress: Callable[[str], None]) -> None:
    while True:
        await trio.sleep(PROGRESS_SECONDS)
        ended = len(load.terminals())
        progress(
            f"{time.monotonic() - began:6.1f} s  {ended:6d} of {options.turns} turns ended, "
            f"{load.kills} workers killed, {load.missing().__len__()} under way"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Turns under load while workers die.")
    parser.add_argument("--turns", type=int, default=2000)
    parser.add_argument("--conversations", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--kill-every", type=float, default=0.2, metavar="SECONDS")
    parser.add_argument("--hosts", type=int, default=1, help="on one database; more than one: these are killed too")
    parser.add_argument("--host-kill-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=600.0, help="give up after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args()
    options = Options(
        given.turns,
        given.conversations,
        given.clients,
        given.kill_every,
        given.host_kill_every,
        given.seconds,
        given.seed,
        given.hosts,
    )
    report = trio.run(soak, options, lambda line: print(line, file=sys.stderr, flush=True))
    broken = report.broken(options)
    if given.json:
        print(json.dumps({**attrs.asdict(report), "broken": broken}, indent=2))
    else:
        for name, value in attrs.asdict(report).items():
            print(f"{name.replace('_', ' '):>20}  {value}")
        print("\n".join(f"BROKEN: {sentence}" for sentence in broken) or "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

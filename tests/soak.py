"""The soak: thousands of turns from many clients while a random worker is killed every so often.

`python -m tests.soak`, or `make soak`. Exit code 1 when a promise is broken; the last lines say which. What is checked
at the clients, and then in the database: one terminal event for each accepted turn and none for anything else, logs
numbered without a gap, nothing owed and nothing live at the end, no process left after the stop.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import attrs
import trio

from tests.system.audit import broken_promises
from tests.system.load import Load
from tests.system.lobu_process import ECHO, lobu_run

# Five crashes a minute are a loop by default; here a worker dies several times a second, on purpose.
CONFIG = f"""
[limits]
crash_loop_crashes = 1000
{ECHO}"""
PROGRESS_SECONDS = 2.0


@attrs.frozen
class Options:
    turns: int = 2000
    conversations: int = 100
    clients: int = 20
    kill_every_seconds: float = 0.2
    bound_seconds: float = 600.0
    seed: int = 0


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
        if self.accepted != options.turns:
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
    async with lobu_run(config=CONFIG) as run:
        load = Load(run, options.turns, options.conversations, options.clients, seed=options.seed)
        began = time.monotonic()
        with trio.move_on_after(options.bound_seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.kill_workers, options.kill_every_seconds)
                nursery.start_soon(_show, load, options, began, progress)
                await load.go()
                report.in_time = True
                nursery.cancel_scope.cancel()
        report.wall_seconds = round(time.monotonic() - began, 2)
        _fill_in(report, load)
        report.log_faults = broken_promises(run.database_url, accepted=load.accepted)
        report.exit_code = await run.stop()
        report.leftover_processes = len(run.processes())
    return report


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
    parser.add_argument("--seconds", type=float, default=600.0, help="give up after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    given = parser.parse_args()
    options = Options(given.turns, given.conversations, given.clients, given.kill_every, given.seconds, given.seed)
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

"""Races of an owner that was paused against the host that took over from it: none of its writes may be accepted.

`python -m tests.stale_writers`, or `make stale-writers`. Real Postgres, every guarded write of the store in turn, each
in a state in which it would take effect if the lease were still held. The two meet in three ways:

- behind: both wait for the lease row at once, the takeover first: the write began before the takeover was committed,
  and judges the lease after it;
- moment: both are sent at the same time. A write that was first is no stale one: it must be in what the successor
  found, and is not counted;
- late: the write comes while the successor is at work.

Exit code 1 when a write was accepted behind a takeover, or when a log, a lease, a session or what a singleton remembers
is afterwards anything else than what the legitimate owners wrote.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack

import attrs
import trio

from lobu_actors.store.pool import Pool
from tests.stale_lanes import ConversationLane, Lane, SingletonLane, Tally
from tests.system.audit import broken_promises
from tests.system.cluster import database
from tests.verdict import verdict


@attrs.frozen
class Options:
    races: int = 10_000
    lanes: int = 6  # conversations; and one lane of singletons
    seed: int = 0


@attrs.define
class Report:
    tally: Tally = attrs.field(factory=Tally)
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0


async def race(options: Options, url: str, progress: Callable[[str], None] = lambda line: None) -> Report:
    """On a migrated database that nobody else uses."""
    report, began = Report(), time.monotonic()
    tally = report.tally
    async with AsyncExitStack() as stack:
        watcher = Pool(url, size=options.lanes + 1)
        stack.callback(watcher.close)
        lanes: list[Lane] = [
            ConversationLane(url, number, tally, options.seed) if number else SingletonLane(url, tally, options.seed)
            for number in range(options.lanes + 1)
        ]
        for lane in lanes:
            await stack.enter_async_context(lane.opened(watcher))
            await lane.check_that_every_write_lands()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show, tally, options, progress)
            async with trio.open_nursery() as racing:
                for lane in lanes:
                    racing.start_soon(lane.go, lambda: tally.races >= options.races or bool(tally.faults))
            nursery.cancel_scope.cancel()
        report.faults += tally.faults
        for lane in lanes:
            report.faults += await lane.faults()
    report.faults += broken_promises(url)
    report.wall_seconds = round(time.monotonic() - began, 1)
    return report


async def _show(tally: Tally, options: Options, progress: Callable[[str], None]) -> None:
    while True:
        await trio.sleep(5)
        progress(f"{tally.races} of {options.races} stale writes, {len(tally.faults)} accepted")


async def _main(options: Options) -> Report:
    async with database() as server:
        return await race(options, server.url, lambda line: print(line, file=sys.stderr, flush=True))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stale_writers", description=__doc__)
    parser.add_argument("--races", type=int, default=Options().races)
    parser.add_argument("--lanes", type=int, default=Options().lanes)
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    report = trio.run(_main, Options(words.races, words.lanes, words.seed))
    tally = report.tally
    print(f"{tally.races} stale writes in {report.wall_seconds} s, all refused but {tally.accepted}")
    print(f"  by meeting   {_counted(tally.ways)}")
    print(f"  by write     {_counted(tally.refused)}")
    print(f"  not counted  {tally.in_time} writes that came before the takeover, and that the successor found")
    print("\n".join(verdict(report.faults)))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

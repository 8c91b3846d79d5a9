"""Partitions of one host of three while all are under load: nothing that was accepted is lost, doubled or told wrongly.

`python -m tests.cluster.partitions [--rounds 18]`, or `make partitions`. Each round cuts one host off: from Postgres,
from its peers or from both, in what it receives, in what it sends or both ways (nine rounds have each once), for less
than its lease or for longer. Postgres crashes and is started again while the cut lasts. Clients go on reaching every
host; each reads at another host than it posts to. Then the cable is mended and everything has to come to its end.

Exit code 1 when after a round an accepted message has not exactly one terminal event, in the log and at its client, a
client was told something that does not fit or an error that is not its own, a host ended, or `lobu audit` finds
something; 2 where the machine can make no networks.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from itertools import product

import attrs
import trio

from tests.cluster.cluster import Cluster, Host, cluster
from tests.cluster.figures import bounding_settings, spread
from tests.cluster.network import Direction, why_not
from tests.system.audit import broken_promises
from tests.system.load import Load
from tests.system.lobu_process import until
from tests.verdict import verdict

PARTS = list(product(("Postgres", "peers", "both"), Direction))
CUT_SECONDS = (9.0, 3.0)  # a lease of 6 s outlives the second
ENDLESS = 1_000_000
BEFORE_TURNS, AFTER_TURNS = 10, 20  # of each host's load, before the cut and after it
ROUND_SECONDS = 180.0  # and the cut
FITTING = ("complete", "MY_CODE")  # what turns of the load end with, when nothing goes wrong


@attrs.frozen
class Options:
    rounds: int = 2 * len(PARTS)  # each for long and for short
    first: int = 0  # of the eighteen
    hosts: int = 3
    cut_seconds: tuple[float, ...] = CUT_SECONDS
    seed: int = 0


@attrs.frozen
class Part:
    """One round's partition."""

    away: str  # from what
    direction: Direction
    seconds: float

    def __str__(self) -> str:
        return f"{self.away}, {self.direction.value}, {self.seconds:g} s"


@attrs.define
class Report:
    rounds: int = 0
    turns: int = 0
    meanwhile: int = 0  # turns that ended during cuts
    waits: list[float] = attrs.field(factory=list)  # from the mending until each load had turns again, in seconds
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0


class Campaign:
    def __init__(self, whole: Cluster, report: Report, options: Options) -> None:
        self._cluster = whole
        self._report = report
        self._random = random.Random(options.seed)
        self._options = options

    async def round(self, number: int) -> str:
        """One round; gives a line about it."""
        away, direction = PARTS[number % len(PARTS)]
        lengths = self._options.cut_seconds
        part = Part(away, direction, lengths[(number + number // len(PARTS)) % len(lengths)])
        victim = self._cluster.hosts[number % len(self._cluster.hosts)]
        loads = self._loads(number)
        ended_meanwhile = 0
        with trio.move_on_after(ROUND_SECONDS + part.seconds) as scope:
            await self._cluster.linked()
            async with trio.open_nursery() as nursery:
                for load in loads:
                    nursery.start_soon(load.go)
                await _more_turns(loads, BEFORE_TURNS)
                before = _ended(loads)
                await self._partition(victim, part)
                ended_meanwhile = _ended(loads) - before
                mended = time.monotonic()
                await _more_turns(loads, AFTER_TURNS)
                self._report.waits.append(time.monotonic() - mended)
                for load in loads:
                    load.finish()
        faults = [f"not done {ROUND_SECONDS:g} s after the cut"] if scope.cancelled_caught else []
        self._note(f"{victim.name} from {part}", loads, faults)
        self._report.meanwhile += ended_meanwhile
        return f"{victim.name} from {part}: {_ended(loads)} turns, {ended_meanwhile} of them during the cut"

    def _loads(self, number: int) -> list[Load]:
        hosts = self._cluster.hosts
        return [
            Load(
                host.run,
                turns=ENDLESS,
                conversations=5,
                clients=2,
                seed=self._options.seed + 10 * number + place,
                users=f"r{number}{host.name}",
                reads_at=hosts[(place + 1) % len(hosts)].run,
            )
            for place, host in enumerate(hosts)
        ]

    async def _partition(self, victim: Host, part: Part) -> None:
        self._cluster.cut(
            victim, part.direction, database=part.away in ("Postgres", "both"), peers=part.away in ("peers", "both")
        )
        try:
            restart_at = self._random.uniform(0, part.seconds / 2)
            await trio.sleep(restart_at)
            began = trio.current_time()
            await self._cluster.database.restart()
            await trio.sleep_until(began + part.seconds - restart_at)
        finally:
            self._cluster.network.heal(victim.name)

    def _note(self, name: str, loads: list[Load], faults: list[str]) -> None:
        accepted: list[str] = []
        for load in loads:
            accepted += load.accepted
            faults += load.faults()
            faults += [f"an accepted message without a terminal event: {message}" for message in load.missing()]
            faults += [f"a terminal event of {message}, that was not accepted" for message in load.strange()]
            faults += [
                f"{message} ended with {code}" for message, code in load.terminals().items() if code not in FITTING
            ]
        faults += [f"host {host.name} ended\n{host.run.log()}" for host in self._cluster.hosts if not host.run.is_up]
        faults += broken_promises(self._cluster.database.local_url, accepted=accepted)
        self._report.rounds += 1
        self._report.turns += len(accepted)
        self._report.faults += [f"{name}: {fault}" for fault in faults]


def _ended(loads: list[Load]) -> int:
    return sum(len(load.terminals()) for load in loads)


async def _more_turns(loads: list[Load], number: int) -> None:
    """Until each load has so many terminal events more."""
    wanted = [len(load.terminals()) + number for load in loads]
    await until(
        lambda: all(len(load.terminals()) >= enough for load, enough in zip(loads, wanted, strict=True)),
        "turns end on every host",
        ROUND_SECONDS,
    )


async def partition(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Raises NoNetwork where the machine can make none."""
    report, began = Report(), time.monotonic()
    async with cluster(options.hosts) as whole:
        campaign = Campaign(whole, report, options)
        for number in range(options.first, options.first + options.rounds):
            line = await campaign.round(number)
            progress(f"{report.rounds}/{options.rounds} {line}, {len(report.faults)} faults")
    report.wall_seconds = round(time.monotonic() - began, 1)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.partitions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    parser.add_argument("--seconds", type=float, nargs="+", default=CUT_SECONDS, help="how long cuts last, in turn")
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    if (reason := why_not()) is not None:
        print(f"no network can be made here: {reason}", file=sys.stderr)
        sys.exit(2)
    options = Options(words.rounds, cut_seconds=tuple(words.seconds), seed=words.seed)
    report = trio.run(partition, options, lambda line: print(line, flush=True))
    print(f"partitions             {report.rounds} in {report.wall_seconds} s, of one host of {options.hosts}")
    print(f"turns                  {report.turns} accepted, {report.meanwhile} ended during the cuts")
    print(f"from the mending until every host had {AFTER_TURNS} turns more: {spread(report.waits)}")
    print(f"settings               {bounding_settings()}")
    print("\n".join(verdict(report.faults)))
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()

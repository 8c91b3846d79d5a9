"""Faults that overlap while clients do everything there is to do: one end for each accepted message all the same.

`python -m tests.overlap [--rounds 12] [--seed 0]`, or `make overlap`. In each round two to four of these happen within
three seconds, for up to 14 s: a supervisor is killed, paused, drained, or killed or paused while it drains; its spawner
is killed or stands still, and so do workers; a host's line to the database is cut, stalled or slow; the database stands
still, crashes, or loses sessions; a machine that lends its workers is killed, paused, drained, or its line is cut. Two
hosts share one database; with `--hosts 1` the host has its own.

Meanwhile clients post to any host, now and then to both at once, join, steer, interrupt, cancel, reset, ask, answer
late and twice, send files, delete, and read over streams and sockets that break off; others speak the protocols of
OpenAI, the AI SDK and AG-UI; and watchers fire. Then all is mended, clients fall silent, and everything owed has to
come to its end within `--quiet` seconds.

Exit code 1 when an accepted message has not exactly one end, in the log, at the reader that resumed and at one who
comes now; a reply, an answer, a file or a session is not what it has to be; two workers were at one turn at the same
time; a turn was said to be cancelled and ran on, or failed because its worker was ended by us; `lobu audit` finds
something; something is left behind; a host or a machine did not start, drain or end as it should; a client of another
protocol was told no end, two, or another text; or a firing is not one turn. What a machine's worker does beside its
successor is not judged: it may, for as long as a cut line may take to come back. The seed gives the faults and what
clients do, not the order in which it happens.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio

from tests.overlap.dialects import Asker, turns_made
from tests.overlap.faults import World, world
from tests.overlap.judging import heard_wrong, owed, replay, worked_at_once
from tests.overlap.talks import Talk, every
from tests.overlap.watching import CONFIG as WATCHERS
from tests.overlap.watching import fired_wrong, fires, note_firings
from tests.system.audit import broken_promises
from tests.verdict import verdict

WORKERS = Path(__file__).parents[1] / "workers"
CONFIG = f"""
[limits]
crash_loop_crashes = 1000
drain_grace_seconds = 2
cancel_grace_seconds = 2
requests_per_second = 0
worker_idle_seconds = 10
streams_per_conversation = 1000
[workers.executed]
command = ["python", "{WORKERS / "all_manners.py"}"]
[workers.forked]
command = ["python", "{WORKERS / "all_manners.py"}"]
zygote = true
warm = 1
[workers.fuzzing]
command = ["{sys.executable}", "{WORKERS / "fuzzing.py"}", "SEED"]
[workers.gpu]
remote = true
reconnect_seconds = 5
"""
AGENT = """
[[agents]]
id = "{worker}"
worker = "{worker}"
[agents.deadlines]
startup_seconds = 30
first_output_seconds = 4
heartbeat_seconds = 12
progress_seconds = 8
turn_seconds = 40
question_seconds = 5
[agents.failure]
crash = "{crash}"
max_attempts = 3
retry_backoff_seconds = 0.2
"""
AGENTS = {"executed": "fail", "forked": "retry", "fuzzing": "retry", "gpu": "retry"}
OTHERS = ("forked", "gpu", "executed")  # whom clients of other protocols ask
TALKERS = ("executed", "forked", "executed", "forked", "fuzzing")  # of five talks
# What a host's log has when it met what it had not thought of.
SURPRISES = ("request failed", "INTERNAL_ERROR", "unknown run ended", "unguarded run refused")
BEFORE_SECONDS = 1.5
ROUND_SECONDS = 300.0
REPLAY_SECONDS = 20.0


@attrs.frozen
class Options:
    seed: int = 0
    first: int = 0
    rounds: int = 12
    hosts: int = 2
    talks: int = 10
    machines: int = 2  # that lend their workers
    lent: int = 4  # further talks, with those
    others: int = 6  # clients of other protocols
    quiet_seconds: float = 60.0
    longest_seconds: float = 14.0  # that a fault lasts; a lease lasts 6 s


@attrs.define
class Report:
    rounds: int = 0
    accepted: int = 0
    ends: Counter[str] = attrs.field(factory=Counter)
    others: Counter[str] = attrs.field(factory=Counter)  # ends in other protocols
    caused: Counter[str] = attrs.field(factory=Counter)
    quiet_after: list[float] = attrs.field(factory=list)  # seconds from the last mending to the last end, of each round
    conversations: int = 0
    connections: int = 0
    retried_calls: int = 0
    faults: list[str] = attrs.field(factory=list)


class Campaign:
    def __init__(self, place: World, options: Options, readers: trio.Nursery) -> None:
        self.report = Report()
        self._place = place
        self._options = options
        self._acted = ""  # what was answered last
        self._excused: set[str] = set()  # turns of which nobody was left to stop the workers
        talkers = [TALKERS[number % 5] for number in range(options.talks)] + ["gpu"] * options.lent
        self._talks = [
            Talk(place.hosts, f"u{number}", worker, f"{options.seed}/{options.first}/{number}", readers)
            for number, worker in enumerate(talkers)
        ]
        self._askers = [
            Asker(place.hosts, f"o{number}", OTHERS[number % 3], f"{options.seed}/{options.first}/{number}")
            for number in range(options.others)
        ]

    async def round(self, number: int) -> str:
        """Gives a line about it."""
        over = False
        with trio.move_on_after(ROUND_SECONDS) as scope:
            async with trio.open_nursery() as acting:
                for talk in (*self._talks, *self._askers):
                    acting.start_soon(self._act, talk, lambda: over)
                await trio.sleep(BEFORE_SECONDS)
                await self._place.round(random.Random(f"{self._options.seed}/{number}"))
                over, mended, since = True, time.monotonic(), datetime.now(UTC)
        if scope.cancelled_caught:
            self.report.faults.append(f"round {number}: no answer long after all was mended to one of {self._doing()}")
            return "\n".join(self._place.notes)
        last = [f"the answer to {self._acted}"]
        with trio.move_on_at(trio.current_time() + self._options.quiet_seconds):
            while lacking := self._open() or owed(self._place.url) or fires(self._place.url, since):
                last = lacking
                await trio.sleep(0.05)
        self.report.quiet_after.append(round(time.monotonic() - mended, 2))
        url = self._place.url
        found = [*self._open(), *heard_wrong(self._talks), *self._place.faults, *self._worked_at_once()]
        found += [fault for asker in self._askers for fault in asker.faults]
        found += [*fires(url, since), *fired_wrong(url), *turns_made(url, self._askers)]
        found += [*owed(url), *broken_promises(url, quiet=False)]
        self.report.faults += [f"round {number}: {fault}" for fault in found]
        self.report.rounds += 1
        waited = f"quiet after {self.report.quiet_after[-1]:.2f} s, in the end for `{last[0]}`"
        return f"round {number}, {waited}: {'; '.join(self._place.notes)}"

    async def _act(self, talk: Talk | Asker, over: Callable[[], bool]) -> None:
        await talk.go(over)
        self._acted = talk.doing

    def _doing(self) -> list[str]:
        return [talk.doing for talk in (*self._talks, *self._askers)]

    def _open(self) -> list[str]:
        lives = every(self._talks)
        owed = [f"{sent.message_id} ({sent.content[:30]}) has no end" for life in lives for sent in life.owed]
        return owed + [
            f"{life.conversation.key} was deleted and is not closed"
            for life in lives
            if life.deleting and not life.closed
        ]

    def _worked_at_once(self) -> list[str]:
        found = worked_at_once(self._place.hosts)
        if self._place.blind:
            self._excused |= found.keys()
        return [fault for name, fault in found.items() if name not in self._excused]

    def keep(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, host in enumerate(self._place.hosts):
            (folder / f"host{number}.log").write_text(host.errors())
        for number, machine in enumerate(self._place.machines):
            (folder / f"runner{number}.log").write_text(machine.process.errors())
        for life in every(self._talks):
            lines = [f"{frame.id} {frame.event} {frame.data}" for frame in life.transcript.frames]
            (folder / life.conversation.key).write_text("\n".join([*lines, *map(repr, life.sent.values()), ""]))
        for asker in self._askers:
            (folder / asker.user).write_text("\n".join([*map(repr, asker.asked), ""]))

    async def end(self) -> None:
        report, lives = self.report, every(self._talks)
        for number, life in enumerate(lives):
            report.ends.update(
                str(frame.data.get("errorCode") or frame.event) for frame in life.transcript.terminals.values()
            )
            if not life.closed:
                report.faults += await replay(life, self._place.hosts[number % len(self._place.hosts)], REPLAY_SECONDS)
        accepted = [name for life in lives for name in life.accepted]
        report.faults += broken_promises(self._place.url, accepted=accepted, quiet=False)
        report.accepted, report.conversations = len(accepted), len(lives)
        report.connections = sum(life.transcript.connections for life in lives)
        report.retried_calls = sum(talk.retries for talk in (*self._talks, *self._askers))
        report.others.update(
            f"{asked.dialect} {how}" for asker in self._askers for asked in asker.asked for how, _ in asked.ends
        )
        report.caused = self._place.counts
        for machine in self._place.machines:
            await machine.stop()
            report.faults += machine.faults
        for host in self._place.hosts:
            if not host.is_up:
                report.faults.append(f"a host ended by itself\n{host.log()}")
                continue
            if (code := await host.stop()) != 0:
                report.faults.append(f"lobu run exited with {code}")
            left = [*map(str, host.processes()), *map(str, (host.folder / "tmp").iterdir())]
            report.faults += [f"left behind: {what}" for what in left]
            report.faults += [f"the log has `{words}`" for words in SURPRISES if words in host.errors()]


async def overlap(
    options: Options, keep: Path | None = None, progress: Callable[[str], None] = lambda line: None
) -> Report:
    """`keep`: a folder for what each host logged and each client heard. Ends with the first round that has a fault."""
    config = CONFIG.replace("SEED", str(options.seed))
    config += "".join(AGENT.format(worker=worker, crash=crash) for worker, crash in AGENTS.items()) + WATCHERS
    program = WORKERS / "all_manners.py"
    async with world(options.hosts, config, options.longest_seconds, options.machines, program) as place:
        note_firings(place.url)
        async with trio.open_nursery() as readers:
            campaign = Campaign(place, options, readers)
            for number in range(options.first, options.first + options.rounds):
                progress(await campaign.round(number))
                if campaign.report.faults:
                    break
            readers.cancel_scope.cancel()
        if keep is not None:
            campaign.keep(keep)
        await campaign.end()
    return campaign.report


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.overlap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=Options().seed)
    parser.add_argument("--first", type=int, default=Options().first, help="round, to see one again")
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    parser.add_argument("--hosts", type=int, choices=(1, 2), default=Options().hosts)
    parser.add_argument("--talks", type=int, default=Options().talks)
    parser.add_argument("--machines", type=int, default=Options().machines, help="that lend their workers")
    parser.add_argument("--lent", type=int, default=Options().lent, help="talks with such workers")
    parser.add_argument("--others", type=int, default=Options().others, help="clients of other protocols")
    parser.add_argument("--quiet", type=float, default=Options().quiet_seconds, metavar="SECONDS")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for the logs of the hosts and of the clients")
    words = parser.parse_args()
    options = Options(
        seed=words.seed,
        first=words.first,
        rounds=words.rounds,
        hosts=words.hosts,
        talks=words.talks,
        machines=words.machines,
        lent=words.lent,
        others=words.others,
        quiet_seconds=words.quiet,
    )
    report = trio.run(overlap, options, words.keep, lambda line: print(line, file=sys.stderr, flush=True))
    for name, value in attrs.asdict(report).items():
        if name != "faults":
            print(f"{name.replace('_', ' '):>15}  {dict(sorted(value.items())) if isinstance(value, dict) else value}")
    print("\n".join(verdict(report.faults)))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

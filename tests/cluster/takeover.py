"""How long until a conversation goes on at another host when its own is killed, cut off or paused.

`python -m tests.cluster.takeover [--kind killed|cut|paused] [--times 100] [--clusters 4]`, or `make takeovers`. Clients
stream at one host what runs on the other. The cause comes at a random moment; the figure is the time from it to the
client's `restart`, for the last client of each time, over all times. `killed`: SIGKILL to the supervisor, and to the
rest of the host right behind it. `cut`: the host's cable drops everything, both ways. `paused`: SIGSTOP to the
supervisor, and two times of four to the whole host. Afterwards the host comes back, and next the other one goes.

Exit code 1 when a figure is above its bound, a turn has not exactly one terminal event, in the log and at its client, a
client was told something that does not fit, or `lobu audit` finds something; 2 where the machine can make no networks.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import psycopg
import trio

from tests.cluster.cluster import Cluster, Host, cluster
from tests.cluster.figures import bounding_settings, percentile, spread
from tests.cluster.network import why_not
from tests.system.audit import broken_promises, log_of
from tests.system.lobu_process import until
from tests.system.sse_client import TERMINALS, Conversation, Transcript
from tests.verdict import verdict

BOUNDS = {"killed": 1.0, "cut": 10.0, "paused": 10.0}  # seconds at p99
CLUSTERS = {"killed": 1, "cut": 4, "paused": 4}  # side by side; who waits for a lease needs no CPU meanwhile
WORDS, MILLISECONDS = (150, 300), 20  # replies of three to six seconds: all run still at the cause
LATEST_CAUSE_SECONDS = 2.0  # behind the first text: any moment between two renewals of the lease
TIME_SECONDS = 90.0


@attrs.frozen
class Options:
    kind: str = "killed"
    times: int = 100
    clusters: int = 1
    streams: int = 3  # clients at once, each of a conversation of its own
    limits: str = ""  # further lines of the hosts' [limits]
    seed: int = 0
    bound_seconds: float = 7200.0


@attrs.define
class Report:
    restarts: list[float] = attrs.field(factory=list)  # from the cause to the last client's `restart`, in seconds
    texts: list[float] = attrs.field(factory=list)  # and to its first text behind that
    leases: list[float] = attrs.field(factory=list)  # where it was cut off: and to the end of the host's lease
    turns: int = 0
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0

    def over_bound(self, kind: str) -> list[str]:
        if not self.restarts or percentile(self.restarts, 0.99) < BOUNDS[kind]:
            return []
        return [f"the takeover took {percentile(self.restarts, 0.99):.2f} s at p99, not under {BOUNDS[kind]:g} s"]


@attrs.define(eq=False)
class Stream:
    """One client at the host that stays, of a turn that runs on the host that goes, unless that had enough to do."""

    conversation: Conversation
    message_id: str
    transcript: Transcript = attrs.field(factory=Transcript)
    was_there: bool | None = False  # at the cause; None: it was just ending
    restarted_at: float | None = None
    spoke_at: float | None = None

    def look(self) -> bool:
        """Called for each frame."""
        frames = self.transcript.frames
        if self.restarted_at is None and frames and frames[-1].event == "restart":
            self.restarted_at = time.monotonic()
        elif self.restarted_at is not None and self.spoke_at is None and self.transcript.texts[self.message_id]:
            self.spoke_at = time.monotonic()
        return self.message_id in self.transcript.terminals

    @property
    def speaks(self) -> bool:
        return bool(self.transcript.texts.get(self.message_id))


class Campaign:
    """One cluster's share of the times."""

    def __init__(self, whole: Cluster, options: Options, report: Report, seed: int) -> None:
        self._cluster = whole
        self._kind = options.kind
        self._streams = options.streams
        self._report = report
        self._random = random.Random(seed)
        self._number = 0

    async def once(self) -> str:
        """One time; gives a line about it."""
        victim = self._cluster.hosts[self._number % 2]
        [other] = self._cluster.others(victim)
        whole = self._kind == "paused" and self._number % 4 in (1, 2)
        self._number += 1
        await self._cluster.linked()
        streams = [await self._send(victim, other) for _ in range(self._streams)]
        with trio.fail_after(TIME_SECONDS):
            async with trio.open_nursery() as clients:
                for stream in streams:
                    clients.start_soon(stream.transcript.follow, stream.conversation, stream.look)
                await until(lambda: all(stream.speaks for stream in streams), "text comes over the link")
                await trio.sleep(self._random.uniform(0, LATEST_CAUSE_SECONDS))
                running = _running_on(victim, self._cluster.database.local_url)
                began = time.monotonic()
                heal = self._cause(victim, whole)
                still = _running_on(victim, self._cluster.database.local_url)
                lease_ends = _lease_end(victim, self._cluster.database.local_url) if self._kind == "cut" else None
            await heal()
        for stream in streams:
            key = stream.conversation.key
            stream.was_there = None if key in running - still else key in running
        if lease_ends is not None:
            self._report.leases.append(lease_ends - began)
        return self._note(streams, began, f"{self._kind} {victim.name}{', the whole host' if whole else ''}")

    async def _send(self, victim: Host, other: Host) -> Stream:
        there = await victim.client().open()
        message_id = await there.send(f"stream {self._random.randint(*WORDS)} {MILLISECONDS}")
        return Stream(there.through(other.client()), message_id)

    def _cause(self, victim: Host, whole: bool) -> Callable[[], Awaitable[None]]:
        """Makes it happen; gives what undoes it."""
        run, network = victim.run, self._cluster.network
        if self._kind == "cut":
            network.cut(victim.name)

            async def heal() -> None:
                network.heal(victim.name)

        elif self._kind == "paused":
            stopped = _signal([run.pid, *(found.pid for found in run.processes() if whole)], signal.SIGSTOP)

            async def heal() -> None:
                _signal(stopped, signal.SIGCONT)

        else:
            run.signal(signal.SIGKILL)
            _signal([found.pid for found in run.processes()], signal.SIGKILL)

            async def heal() -> None:
                await run.kill_all()
                await run.start()

        return heal

    def _note(self, streams: list[Stream], began: float, name: str) -> str:
        report = self._report
        report.turns += len(streams)
        for stream in streams:
            report.faults += [f"{name}: {fault}" for fault in self._faults(stream)]
        taken = [stream for stream in streams if stream.was_there is not False and stream.restarted_at is not None]
        if not taken:
            return f"{name}: no `restart`"
        report.restarts.append(max(stream.restarted_at or 0.0 for stream in taken) - began)
        report.texts.append(max(stream.spoke_at or 0.0 for stream in taken) - began)
        return f"{name}: `restart` after {report.restarts[-1]:.2f} s"

    def _faults(self, stream: Stream) -> list[str]:
        faults = list(stream.transcript.faults)
        frame = stream.transcript.terminals[stream.message_id]
        if frame.event != "complete":
            faults.append(f"{frame.event} {frame.data.get('errorCode', '')} for {stream.message_id}")
        log = [kind for _, kind, _ in log_of(self._cluster.database.local_url, stream.conversation.key)]
        ends = [kind for kind in log if kind in TERMINALS]
        if ends != ["complete"]:
            faults.append(f"{stream.message_id} has these terminal events in the log: {ends}")
        if stream.was_there not in (None, stream.restarted_at is not None):
            faults.append(
                f"{stream.message_id}: {log}, and it did {'' if stream.was_there else 'not '}run on that host"
            )
        return faults


def _running_on(host: Host, url: str) -> set[str]:
    """The conversations whose turn runs there."""
    host_id = (host.run.folder / ".lobu" / "host_id").read_text().strip()
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT conversation_id FROM run WHERE status = 'live' AND host_id = %s", (host_id,)
        ).fetchall()
    return {conversation for (conversation,) in rows}


def _lease_end(host: Host, url: str) -> float:
    """When it ends, or a little before, as `time.monotonic` counts."""
    host_id = (host.run.folder / ".lobu" / "host_id").read_text().strip()
    now = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM host WHERE host_id = %s"
        [(left,)] = connection.execute(statement, (host_id,)).fetchall()
    return now + float(left)


def _signal(pids: list[int], number: signal.Signals) -> list[int]:
    """The first is the supervisor."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


async def take_over(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Raises NoNetwork where the machine can make none."""
    report, began = Report(), time.monotonic()
    left = options.times

    async def share(number: int) -> None:
        nonlocal left
        async with cluster(2, options.limits) as whole:
            campaign = Campaign(whole, options, report, options.seed * 1000 + number)
            while left > 0:
                left -= 1
                line = await campaign.once()
                progress(f"{len(report.restarts)}/{options.times} {line}, {len(report.faults)} faults")
            report.faults += broken_promises(whole.database.local_url)

    with trio.move_on_after(options.bound_seconds) as bound:
        async with trio.open_nursery() as clusters:
            for number in range(min(options.clusters, options.times)):
                clusters.start_soon(share, number)
    if bound.cancelled_caught:
        report.faults.append(f"not done within {options.bound_seconds:g} s")
    report.wall_seconds = round(time.monotonic() - began, 1)
    return report


def _run(options: Options) -> bool:
    """Whether every promise was kept."""
    report = trio.run(take_over, options, lambda line: print(line, flush=True))
    faults = report.faults + report.over_bound(options.kind)
    print(f"takeovers, {options.kind:<12}{len(report.restarts)} in {report.wall_seconds} s, {report.turns} turns")
    print(f"to the `restart`       {spread(report.restarts)}; bound {BOUNDS[options.kind]:g} s at p99")
    print(f"to the next text       {spread(report.texts)}")
    print(f"settings               {bounding_settings()}")
    print("\n".join(verdict(faults)), flush=True)
    return not faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.takeover", description=__doc__)
    parser.add_argument("--kind", choices=list(BOUNDS), help="default: one after the other")
    parser.add_argument("--times", type=int, default=Options().times)
    parser.add_argument("--clusters", type=int, help=f"side by side; default {CLUSTERS}")
    parser.add_argument("--streams", type=int, default=Options().streams)
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    if (reason := why_not()) is not None:
        print(f"no network can be made here: {reason}", file=sys.stderr)
        sys.exit(2)
    kinds = [words.kind] if words.kind else list(BOUNDS)
    clusters = {kind: words.clusters or CLUSTERS[kind] for kind in kinds}
    every = [
        Options(kind, times=words.times, clusters=clusters[kind], streams=words.streams, seed=words.seed)
        for kind in kinds
    ]
    kept = [_run(options) for options in every]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()

"""Thousands of runs while everything that can be killed is killed: worker, child, grandchild, spawner, supervisor.

`python -m tests.kill_campaign`, or `make kill-campaign`. Turns start children in sessions of their own; a random hand
sends SIGKILL to any process of a real `lobu run`, which is started again when it was the supervisor. Exit code 1 when a
turn has not exactly one terminal event, or when something is left once all is quiet: a process, a descriptor of spawner
or supervisor, a socket, a temporary folder, a finding of `lobu audit`.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from tests.conftest import admin
from tests.system.audit import broken_promises
from tests.system.load import Load
from tests.system.lobu_process import ECHO, LobuRun, free_port, lobu_run, until

CONFIG = f"""
[limits]
crash_loop_crashes = 100000
drain_grace_seconds = 0.05
{ECHO}"""
TARGETS = ("worker", "worker", "worker", "child", "child", "spawner", "supervisor")
QUIET_SECONDS = 30.0  # workers that nobody claims are held for 15 s


@attrs.frozen
class Options:
    runs: int = 2000
    conversations: int = 60
    clients: int = 20
    kill_every_seconds: float = 0.25
    bound_seconds: float = 1500.0
    seed: int = 0


@attrs.define
class Report:
    accepted: int = 0
    ends: Counter[str] = attrs.field(factory=Counter)
    kills: Counter[str] = attrs.field(factory=Counter)
    wall_seconds: float = 0.0
    faults: list[str] = attrs.field(factory=list)


@attrs.define(slots=False)
class SpawningLoad(Load):
    """Half of its turns leave something behind that a worker's end must take along."""

    def _content(self) -> str:
        kind = self.random.random()
        if kind < 0.25:
            return "spawn session"
        if kind < 0.4:
            return self.random.choice(("spawn", "spawn group"))
        return super()._content()


@attrs.frozen
class Quiet:
    """What is there when nothing is to do. Descriptors are counts. Of the supervisor's, connections to the database are
    left out, which its pool makes when it needs them and keeps; and the pidfds of spawner and database, of which it has
    more or fewer as they are its children or an earlier life's."""

    spawner_descriptors: int
    supervisor_descriptors: int
    folders: tuple[str, ...]

    @classmethod
    def of(cls, run: LobuRun) -> Quiet:
        spawner = run.spawner_pid()
        assert spawner is not None
        temporary = tuple(sorted(path.name for path in (run.folder / "tmp").iterdir()))
        [[sessions]] = admin(
            run.database_url,
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        )
        assert isinstance(sessions, int)
        ours = _descriptors(run.pid, spawner, run.postmaster_pid()) - sessions
        return cls(_descriptors(spawner), ours, temporary)

    def faults(self, now: Quiet) -> list[str]:
        found = []
        if now.spawner_descriptors > self.spawner_descriptors:
            found.append(f"the spawner has {now.spawner_descriptors} descriptors, not {self.spawner_descriptors}")
        if now.supervisor_descriptors > self.supervisor_descriptors:
            found.append(f"the supervisor has {now.supervisor_descriptors}, not {self.supervisor_descriptors}")
        return found + [f"temporary {name}" for name in now.folders if name not in self.folders]


class Hand:
    """Kills what it finds. A killed supervisor is started again before the next kill."""

    def __init__(self, run: LobuRun, options: Options) -> None:
        self.run = run
        self.kills: Counter[str] = Counter()
        self._every = options.kill_every_seconds
        self._random = random.Random(options.seed)

    async def go(self, load: Load) -> None:
        await until(lambda: len(load.transcripts) == load.conversations, "all conversations are open")
        while True:
            await trio.sleep(self._random.uniform(0, 2 * self._every))
            target = self._random.choice(TARGETS)
            with trio.CancelScope(shield=True):  # what was killed is up again when the campaign ends
                await self._kill(target)

    async def _kill(self, target: str) -> None:
        if target == "supervisor":
            await self.run.kill_main()
            await self.run.start()
        elif (pid := self._pid_of(target)) is None:
            return
        else:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills[target] += 1

    def _pid_of(self, target: str) -> int | None:
        if target == "spawner":
            return self.run.spawner_pid()
        found = self.run.worker_pids() if target == "worker" else [pid for pid, _ in sleepers(self.run)]
        return self._random.choice(found) if found else None


def sleepers(run: LobuRun) -> list[tuple[int, str]]:
    """What workers have started."""
    return [(found.pid, found.command) for found in run.processes() if found.command == "sleep 1000"]


async def campaign(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    report = Report()
    began = time.monotonic()
    # A port of its own: the clients talk to one address, whichever supervisor is behind it.
    async with lobu_run(config=CONFIG, arguments=("--port", str(free_port()))) as run:
        await _warm_up(run)
        before = Quiet.of(run)
        load = SpawningLoad(run, sys.maxsize, options.conversations, options.clients, seed=options.seed)
        hand = Hand(run, options)
        with trio.move_on_after(options.bound_seconds) as bound:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hand.go, load)
                nursery.start_soon(_finish, load, hand, options)
                nursery.start_soon(_show, load, hand, options, progress)
                await load.go()
                nursery.cancel_scope.cancel()
        if bound.cancelled_caught:
            progress(run.errors()[-4000:])
            report.faults.append(f"not done within {options.bound_seconds:g} s: {sorted(load.missing())[:5]}")
        report.accepted, report.ends, report.kills = len(load.accepted), load.counts(), hand.kills
        report.faults += load.faults()[:10]
        report.faults += [f"no end: {message_id}" for message_id in sorted(load.missing())[:10]]
        report.faults += [f"an end of nothing: {message_id}" for message_id in sorted(load.strange())[:10]]
        report.faults += await _left_behind(run, load, before)
    report.wall_seconds = round(time.monotonic() - began, 1)
    return report


async def _finish(load: Load, hand: Hand, options: Options) -> None:
    """There are as many runs as it takes until something of each kind was killed, and no fewer than were asked for."""
    await until(
        lambda: len(load.accepted) >= options.runs and set(TARGETS) <= hand.kills.keys(),
        "enough is done",
        options.bound_seconds,
    )
    load.finish()


async def _warm_up(run: LobuRun) -> None:
    """What is made with the first turn belongs to the quiet state."""
    load = SpawningLoad(run, 8, 4, 4)
    await load.go()
    await _no_workers(run)


async def _no_workers(run: LobuRun) -> list[str]:
    """End the workers, which have nothing to do, and see what they had started end with them."""
    for pid in run.worker_pids():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        await until(lambda: not run.worker_pids() and not sleepers(run), "all workers end", QUIET_SECONDS)
    except AssertionError:
        return [f"left: {command} {pid}" for pid, command in sleepers(run)] or ["workers are left"]
    return []


async def _left_behind(run: LobuRun, load: Load, before: Quiet) -> list[str]:
    found = await _no_workers(run)
    found += broken_promises(run.database_url, accepted=load.accepted)
    faults: list[str] = []

    def is_as_before() -> bool:
        nonlocal faults
        if run.spawner_pid() is None:  # killed last of all, and not replaced yet
            faults = ["there is no spawner"]
            return False
        faults = before.faults(Quiet.of(run))
        return not faults

    with suppress(AssertionError):
        await until(is_as_before, "as before", QUIET_SECONDS)
    found += faults
    if (code := await run.stop()) != 0:
        found.append(f"lobu run exited with {code}")
    found += [f"left after the stop: {process.command}" for process in run.processes()]
    found += [f"a socket is left: {path}" for path in _sockets(run.folder)]
    records = run.folder / ".lobu" / "spawner" / "workers"
    return found + [f"a record is left: {path.name}" for path in records.iterdir()]


def _descriptors(pid: int, *known: int) -> int:
    """How many it has, but for the pidfds of these processes."""
    return sum(_named_by(path) not in known for path in Path(f"/proc/{pid}/fdinfo").iterdir())


def _named_by(descriptor: Path) -> int | None:
    """The process that a pidfd stands for, -1 for one that is gone; None: it is no pidfd."""
    with suppress(FileNotFoundError):
        for line in descriptor.read_text().splitlines():
            if line.startswith("Pid:"):
                return int(line.removeprefix("Pid:"))
    return None


def _sockets(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_socket()]


async def _show(load: Load, hand: Hand, options: Options, progress: Callable[[str], None]) -> None:
    while True:
        await trio.sleep(5)
        progress(f"{len(load.terminals())} of {options.runs} runs ended, killed: {dict(hand.kills)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill_campaign", description=__doc__)
    parser.add_argument("--runs", type=int, default=Options().runs)
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    report = trio.run(campaign, Options(words.runs, seed=words.seed), lambda line: print(line, flush=True))
    print(f"{report.accepted} runs in {report.wall_seconds} s; ends: {dict(report.ends)}; killed: {dict(report.kills)}")
    for fault in report.faults:
        print(f"FAULT {fault}")
    print("nothing is left" if not report.faults else f"{len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

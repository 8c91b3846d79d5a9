"""Machines that lend their workers to the hosts, each by a line of its own, and what happens to them in a round.

Each joins at one host and serves both, with few places. Up and let in again when a fault of it is over.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from tests.fakes.proxy import Proxy
from tests.system.lobu_process import LobuRun, until
from tests.system.remote_world import RunnerProcess, proxied, runner, worker_key

SLOTS = "2"
CONFIG = "[limits]\ndrain_grace_seconds = 2\ncancel_grace_seconds = 2\n"
DRAINED_SECONDS = 60.0
LET_IN_SECONDS = 60.0
SPAWNER = b"supervisor.spawner"
Fault = Callable[[random.Random], Awaitable[None]]
Note = Callable[[str, str, float | None], None]
Seconds = Callable[[random.Random], float]


class Runner:
    """`faults`: sentences about ends and starts that were not as they should be."""

    def __init__(self, process: RunnerProcess, line: Proxy, number: int) -> None:
        self.process = process
        self.faults: list[str] = []
        self._line = line
        self._name = f"runner{number}"
        self._line_name = f"runnerline{number}"

    def slots(self, note: Note, seconds: Seconds) -> dict[str, Fault]:
        return {
            self._name: partial(self._runner, note, seconds),
            self._line_name: partial(self._cut, note, seconds),
        }

    async def _cut(self, note: Note, seconds: Seconds, dice: random.Random) -> None:
        how, lasts = dice.choice(("cut", "stall", "slow", "often")), seconds(dice)
        note(self._line_name, how, lasts)
        if how == "slow":
            self._line.latency_seconds = dice.uniform(0.01, 0.3)
        elif how == "stall":
            self._line.stall()
        elif how == "cut":
            self._line.cut()
        else:
            for _ in range(dice.randint(2, 8)):
                self._line.cut()
                self._line.heal()
                await trio.sleep(dice.uniform(0, lasts / 4))
        await trio.sleep(lasts)
        self._line.latency_seconds = 0.0
        self._line.heal()

    async def _runner(self, note: Note, seconds: Seconds, dice: random.Random) -> None:
        ways = ("kill", "kill all", "pause", "kill paused", "drain", "paused drain", "spawner", "workers")
        how, lasts = dice.choice(ways), seconds(dice)
        note(self._name, how, lasts)
        main = self.process.main
        if how == "workers":
            await self._workers(dice)
        elif how == "spawner":
            for pid in self._spawners():
                _signal(pid, signal.SIGKILL)
        elif how in ("pause", "kill paused", "paused drain"):
            if how == "paused drain":
                main.send_signal(signal.SIGTERM)
                await trio.sleep(dice.uniform(0, 0.5))
            _signal(main.pid, signal.SIGSTOP)
            await trio.sleep(lasts)
            _signal(main.pid, signal.SIGKILL if how == "kill paused" else signal.SIGCONT)
        elif how == "kill all":
            await self.process.kill_all()
        else:
            main.send_signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        if how.endswith("drain"):
            await self._drained(how)
        if how not in ("pause", "spawner", "workers"):
            await self.process.ended()
            await trio.sleep(dice.choice((0.0, seconds(dice))))
            self.process.launch()

    async def _workers(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 4)):
            await trio.sleep(dice.uniform(0, 0.7))
            if pids := sorted(self.process.worker_pids()):
                _signal(dice.choice(pids), dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP)))

    def _spawners(self) -> list[int]:
        return [pid for pid in self.process.pids() if SPAWNER in _command(pid)]

    async def _drained(self, how: str) -> None:
        try:
            code = await self.process.ended(DRAINED_SECONDS)
        except AssertionError as error:
            self.faults.append(f"{self._name} did not end ({how}): {error}")
            await self.process.kill_all()
            return
        if code != 0:
            self.faults.append(f"{self._name} exited with {code} ({how})\n{self.process.log()}")
        if left := [_command(pid) for pid in self.process.pids()]:
            self.faults.append(f"{self._name} left behind ({how}): {left}")

    async def let_in(self) -> None:
        """Once all is mended: it runs and was let in, since its last start."""
        try:
            await until(lambda: self.process.connected or self.process.main.poll() is not None, "", LET_IN_SECONDS)
        except AssertionError:
            self.faults.append(f"{self._name} is not let in any more\n{self.process.log()}")
        if self.process.main.poll() is not None:
            self.faults.append(f"{self._name} ended by itself\n{self.process.log()}")

    async def stop(self) -> None:
        if self.process.main.poll() is None:
            self.process.main.send_signal(signal.SIGTERM)
            await self._drained("at the end")


@asynccontextmanager
async def runners(hosts: Sequence[LobuRun], number: int, program: Path) -> AsyncIterator[list[Runner]]:
    """That many, let in, at one host after the other."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        found = []
        key = await worker_key(hosts[0]) if number else ""
        for place in range(number):
            line = await proxied(hosts[place % len(hosts)], nursery)
            words = ("--slots", SLOTS)
            far = runner(
                hosts[0],
                url=f"http://127.0.0.1:{line.port}",
                key=key,
                arguments=words,
                program=("python", str(program)),
                start=False,
            )
            process = await stack.enter_async_context(far)
            (process.folder / "lobu.toml").write_text(CONFIG)
            await process.start()
            found.append(Runner(process, line, place))
        yield found


def _command(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)

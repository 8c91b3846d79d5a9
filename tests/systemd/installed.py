"""Lobu as an operator has it: installed by `lobu systemd install` into a machine of its own, and asked over HTTP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from tests.system.sse_client import Client
from tests.systemd.harness import Machine

LOBU = Path(sys.prefix) / "bin" / "lobu"
URL = "http://127.0.0.1:8787"
DATA = "/var/lib/lobu"
KEY = "lobu_systemd-test-admin-key"
SUPERVISOR, SPAWNER, POSTGRES = "lobu-supervisor.service", "lobu-spawner.service", "lobu-postgres.service"
EDGES = ("lobu-edge@1.service", "lobu-edge@2.service")
EVERY = (SUPERVISOR, SPAWNER, POSTGRES, *EDGES)
START_SECONDS = 90.0
CONFIG = """
[server]
public_url = "http://127.0.0.1:8787"
[limits]
drain_grace_seconds = 15
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[[agents]]
id = "echo"
worker = "echo"
default = true
"""


class Lobu:
    """The installation in a machine that is on."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.client = Client(URL, KEY)

    @property
    def database_url(self) -> str:
        """Of the embedded server, as seen from outside."""
        return f"postgresql://lobu@/postgres?host={self.machine.path(DATA)}/.lobu/run"

    async def install(self, *words: str) -> str:
        return await self.machine.run(LOBU, "systemd", "install", "--embedded", *words)

    async def start(self) -> None:
        """Ready to be talked to when it returns."""
        await self.machine.run("systemctl", "start", "lobu.target", seconds=START_SECONDS)
        await self.ready()

    async def ready(self) -> None:
        """Every unit is active, which each says itself."""
        for unit in EVERY:
            await self.active(unit)

    async def active(self, unit: str) -> None:
        await self.state(unit, "active")

    async def state(self, unit: str, wanted: str, seconds: float = START_SECONDS) -> None:
        """Wait until its ActiveState is that."""
        state = ""

        async def look() -> bool:
            nonlocal state
            state = await self.machine.show(unit, "ActiveState")
            return state == wanted

        try:
            await eventually(look, f"{unit} is {wanted}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {state}\n{await self.machine.journal(unit)}") from None

    async def pid(self, unit: str) -> int:
        """Of its main process, inside; 0: it has none."""
        return int(await self.machine.show(unit, "MainPID"))

    async def kill(self, unit: str, number: signal.Signals = signal.SIGKILL) -> None:
        """A signal to its main process alone."""
        await self.machine.run("kill", f"-{number.value}", str(await self.pid(unit)))

    async def started_again(self, unit: str, before: int, seconds: float = START_SECONDS) -> None:
        """Active in another process than before."""

        async def look() -> bool:
            return await self.pid(unit) not in (0, before) and await self.machine.show(unit, "ActiveState") == "active"

        try:
            await eventually(look, f"{unit} runs again", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.machine.journal(unit)}") from None

    def processes(self, unit: str) -> list[int]:
        """What is in the cgroup of a unit; empty when there is no cgroup."""
        found: list[int] = []
        for path in self.machine.path("/sys/fs/cgroup").rglob("cgroup.procs"):
            if path.parent.name == unit or f"/{unit}/" in str(path):
                with suppress(OSError):
                    found += [int(pid) for pid in path.read_text().split()]
        return found


@asynccontextmanager
async def installed(machine: Machine, config: str = CONFIG) -> AsyncIterator[Lobu]:
    """Booted, installed and started; this thread's sockets are the machine's meanwhile."""
    prepare(machine, config)
    await machine.boot()
    lobu = Lobu(machine)
    await lobu.install()
    try:
        await lobu.start()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{await machine.journal(lines=400)}") from None
    with machine.network():
        yield lobu


def prepare(machine: Machine, config: str) -> None:
    machine.disk("etc/lobu/lobu.toml").write_text(config)
    key = machine.disk("etc/lobu/credentials/admin_key")
    key.write_text(f"{KEY}\n")
    # Whoever runs the units must be able to reach the interpreter, which on this machine may lie in root's home.
    for folder in (*Path(sys.executable).resolve().parents, *LOBU.parents):
        if os.stat(folder).st_mode & 0o001 == 0:
            machine.disk(f"{folder}/x").parent.chmod(0o711)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until `condition()` is true; AssertionError naming `what` when it does not come true in time."""
    deadline = trio.current_time() + seconds
    while not await condition():
        if trio.current_time() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await trio.sleep(0.05)

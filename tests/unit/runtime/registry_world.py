"""Actors by key that write into one log, for the tests of the registry."""

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from lobu_actors.runtime.actor import Actor
from lobu_actors.runtime.child_spec import ChildSpec
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.registry import Registry
from lobu_actors.runtime.supervisor import Supervisor
from tests.unit.runtime.serving import run_while

REQUEST = contextvars.ContextVar("REQUEST", default="none")


class World:
    """Actors that write into one log, count how many of a key live, and obey a few words."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.alive: dict[str, int] = {}
        self.crashes: list[tuple[str, BaseException]] = []
        self.gate = trio.Event()
        self.stop_seconds = 0.0
        self.may_passivate = True
        self.fail_to_start = 0

    def actor(self, key: str) -> "Worker":
        return Worker(self, key)

    def registry(self, **changes) -> Registry[str, str]:
        options = {
            "idle_seconds": 10.0,
            "mailbox_capacity": 5,
            "max_actors": 10,
            "intensity": Intensity(2, 60.0),
            "on_crash": lambda key, error: self.crashes.append((key, error)),
        }
        return Registry(self.actor, **{**options, **changes})

    def of(self, key: str) -> list[str]:
        return [what for who, what in self.log if who == key]


class Worker(Actor[str]):
    def __init__(self, world: World, key: str) -> None:
        self.world, self.key = world, key

    async def started(self) -> None:
        if self.world.fail_to_start:
            self.world.fail_to_start -= 1
            raise OSError("cannot start")
        self.world.alive[self.key] = self.world.alive.get(self.key, 0) + 1
        assert self.world.alive[self.key] == 1, "two incarnations of a key"
        self.world.log.append((self.key, "started"))

    async def handle(self, message: str) -> object:
        self.world.log.append((self.key, message))
        if message == "crash":
            raise ValueError(message)
        if message == "wait":
            await self.world.gate.wait()
        if message == "request":
            return REQUEST.get()
        return message.upper()

    async def stopped(self) -> None:
        self.world.log.append((self.key, "stopping"))
        await trio.sleep(self.world.stop_seconds)
        self.world.alive[self.key] -= 1
        self.world.log.append((self.key, "stopped"))

    def ended(self) -> None:
        if self.world.alive[self.key] and "stopped" not in self.world.of(self.key)[-1:]:
            self.world.alive[self.key] -= 1  # cancelled

    def may_passivate(self) -> bool:
        return self.world.may_passivate


@asynccontextmanager
async def running(registry: Registry[str, str], shutdown_seconds: float = 5.0) -> AsyncIterator[Registry[str, str]]:
    spec = ChildSpec("registry", registry.run, shutdown_seconds=shutdown_seconds, subtree=registry.snapshot)
    async with run_while(Supervisor("s", [spec])):
        yield registry


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()

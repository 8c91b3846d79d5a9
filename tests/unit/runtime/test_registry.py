"""The registry: activation, passivation and its race, crash isolation, quarantine, stopping."""

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from lobu_actors.runtime.actor import Actor
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec
from lobu_actors.runtime.errors import ActorStopped, AskTimeout, MailboxFull, RegistryFull
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.mailbox import Overflow
from lobu_actors.runtime.registry import Registry
from lobu_actors.runtime.supervisor import Supervisor
from lobu_actors.runtime.tree import NodeState, render

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


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def running(registry: Registry[str, str], shutdown_seconds: float = 5.0) -> AsyncIterator[Registry[str, str]]:
    spec = ChildSpec("registry", registry.run, shutdown_seconds=shutdown_seconds, subtree=registry.snapshot)
    supervisor = Supervisor("s", [spec])
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.serve)
        try:
            yield registry
        finally:
            supervisor.stop()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_a_message_activates_its_key_once(world, autojump_clock):
    async with running(world.registry()) as registry:
        assert "a" not in registry
        registry.tell("a", "1")
        registry.tell("a", "2")
        assert "a" in registry
        assert list(registry.keys()) == ["a"]
        assert (registry.depth("a"), registry.depth("b")) == (2, 0)
        await settle()
        assert await registry.ask("b", "3", 1.0) == "3"
        assert world.of("a") == ["started", "1", "2"]
        assert registry.active == 2


async def test_an_idle_actor_is_passivated_and_comes_back(world, autojump_clock):
    async with running(world.registry()) as registry:
        registry.tell("a", "1")
        await trio.sleep(6)
        registry.tell("a", "2")
        await trio.sleep(6)
        assert "a" in registry
        await trio.sleep(5)
        assert "a" not in registry
        registry.tell("a", "3")
        await settle()
        assert world.of("a") == ["started", "1", "2", "stopping", "stopped", "started", "3"]


async def test_a_nudged_actor_is_passivated_at_once_if_it_may(world, autojump_clock):
    async with running(world.registry()) as registry:
        registry.tell("a", "1")
        await settle()
        registry.nudge("nobody")
        registry.nudge("a")
        await settle()
        assert "a" not in registry
        world.may_passivate = False
        registry.tell("a", "2")
        await settle()
        registry.nudge("a")
        await settle()
        assert "a" in registry


async def test_an_actor_that_was_long_at_one_message_is_not_idle_when_it_is_done(world, autojump_clock):
    async with running(world.registry()) as registry:
        registry.tell("a", "wait")
        await trio.sleep(100)
        world.gate.set()
        await trio.sleep(9)
        assert "a" in registry
        await trio.sleep(4)
        assert "a" not in registry


async def test_an_actor_that_may_not_passivate_stays_until_it_may(world, autojump_clock):
    world.may_passivate = False
    async with running(world.registry()) as registry:
        registry.tell("a", "1")
        await trio.sleep(100)
        assert "a" in registry
        world.may_passivate = True
        await trio.sleep(11)
        assert "a" not in registry


async def test_a_message_during_stopped_goes_to_the_next_incarnation_after_the_old_one_has_ended(world, autojump_clock):
    world.stop_seconds = 5.0
    async with running(world.registry(), 20.0) as registry:
        registry.tell("a", "1")
        await trio.sleep(12)
        assert world.of("a")[-1] == "stopping"
        assert not registry.tell_if_active("a", "ignored")
        registry.tell("a", "2")
        assert registry.tell_if_active("a", "3")
        assert await registry.ask("a", "4", 60.0) == "4"
        assert world.of("a") == ["started", "1", "stopping", "stopped", "started", "2", "3", "4"]
        assert registry.snapshot().children[0].restarts == 1


async def test_tell_if_active_activates_nothing(world, autojump_clock):
    async with running(world.registry()) as registry:
        assert not registry.tell_if_active("a", "1")
        registry.tell("a", "2")
        assert registry.tell_if_active("a", "3")
        await settle()
    assert world.of("a")[:3] == ["started", "2", "3"]
    assert not registry.tell_if_active("a", "4")


async def test_a_crash_is_told_and_harms_no_other_actor_nor_the_messages_that_wait(world, autojump_clock):
    async with running(world.registry()) as registry:
        for message in ("1", "crash", "2"):
            registry.tell("a", message)
        registry.tell("b", "wait")
        await settle()
        assert world.of("a") == ["started", "1", "crash", "stopping", "stopped", "started", "2"]
        assert [(key, str(error)) for key, error in world.crashes] == [("a", "crash")]
        world.gate.set()
        assert await registry.ask("b", "3", 1.0) == "3"
        assert world.of("b") == ["started", "wait", "3"]


async def test_a_crash_with_nothing_waiting_removes_the_actor(world, autojump_clock):
    async with running(world.registry()) as registry:
        with pytest.raises(ValueError, match="crash"):
            await registry.ask("a", "crash", 1.0)
        await settle()
        assert "a" not in registry


async def test_a_key_that_crashes_too_often_is_quarantined_for_a_window_and_its_messages_dropped(world, autojump_clock):
    async with running(world.registry()) as registry:
        for _ in range(3):
            registry.tell("a", "crash")
        registry.tell("a", "never")
        with pytest.raises(ActorStopped):
            await registry.ask("a", "dropped", 100.0)
        assert "a" not in registry
        assert len(world.crashes) == 3
        with pytest.raises(ActorStopped, match="quarantine"):
            registry.tell("a", "1")
        assert not registry.tell_if_active("a", "1")
        registry.tell("b", "1")
        await trio.sleep(59)
        with pytest.raises(ActorStopped):
            registry.tell("a", "1")
        await trio.sleep(2)
        registry.tell("a", "back")
        await settle()
        assert world.of("a")[-2:] == ["started", "back"]
        assert "never" not in world.of("a")


async def test_crashes_of_incarnations_that_left_nothing_behind_count_too(world, autojump_clock):
    async with running(world.registry()) as registry:
        for _ in range(3):
            registry.tell("a", "crash")
            await settle()
        with pytest.raises(ActorStopped, match="quarantine"):
            registry.tell("a", "1")


async def test_an_actor_that_fails_to_start_keeps_its_messages_for_the_next_incarnation(world, autojump_clock):
    world.fail_to_start = 2
    async with running(world.registry()) as registry:
        assert await registry.ask("a", "1", 1.0) == "1"
        assert len(world.crashes) == 2


async def test_a_factory_that_fails_is_a_crash(world, autojump_clock):
    def broken(key: str) -> Worker:
        raise KeyError(key)

    crashes: list[str] = []
    registry = Registry(
        broken,
        idle_seconds=1.0,
        mailbox_capacity=1,
        max_actors=1,
        intensity=Intensity(1, 5.0),
        on_crash=lambda key, error: crashes.append(key),
    )
    async with running(registry):
        with pytest.raises(ActorStopped):
            await registry.ask("a", "1", 1.0)
        assert crashes == ["a", "a"]


async def test_a_stopped_that_hangs_is_a_crash_and_frees_the_key(world, autojump_clock):
    world.stop_seconds = 1000.0
    async with running(world.registry(stop_seconds=3.0)) as registry:
        registry.tell("a", "1")
        await trio.sleep(15)
        assert "a" not in registry
        assert len(world.crashes) == 1


async def test_limits_of_actors_and_messages(world, autojump_clock):
    async with running(world.registry(max_actors=1, mailbox_capacity=1)) as registry:
        registry.tell("a", "wait")
        with pytest.raises(RegistryFull):
            registry.tell("b", "1")
        with pytest.raises(MailboxFull):
            await registry.put("a", "1")
        world.gate.set()
        await trio.sleep(12)
        registry.tell("b", "1")


async def test_put_waits_for_room_and_is_cancelled_without_a_trace(world, autojump_clock):
    async with running(world.registry(overflow=Overflow.WAIT, mailbox_capacity=1)) as registry:
        await registry.put("a", "wait")
        await settle()
        await registry.put("a", "1")
        with trio.move_on_after(5) as scope:
            await registry.put("a", "cancelled")
        assert scope.cancelled_caught
        with pytest.raises(AskTimeout):
            await registry.ask("a", "too late", 1.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.put, "a", "2")
            await settle()
            world.gate.set()
        await settle()
        assert world.of("a") == ["started", "wait", "1", "2"]
        with trio.CancelScope() as scope:
            scope.cancel()
            await registry.put("b", "1")
        assert "b" not in registry


async def test_an_actor_does_not_inherit_the_context_of_who_wrote_first(world, autojump_clock):
    async with running(world.registry()) as registry:
        REQUEST.set("request 1")
        assert await registry.ask("a", "request", 1.0) == "none"


async def test_a_registry_that_does_not_run_takes_nothing(world, autojump_clock):
    registry = world.registry()
    with pytest.raises(ActorStopped):
        registry.tell("a", "1")
    async with running(registry):
        with pytest.raises(RuntimeError, match="already"):
            await registry.run(ChildContext("again"))
    with pytest.raises(ActorStopped):
        registry.tell("a", "1")
    async with running(registry):
        assert await registry.ask("a", "1", 1.0) == "1"


async def test_stopping_ends_the_current_message_calls_stopped_and_drops_the_rest(world, autojump_clock):
    registry, refused = world.registry(), list[str]()

    async def ask() -> None:
        try:
            await registry.ask("a", "dropped", 100.0)
        except ActorStopped:
            refused.append("dropped")

    async with trio.open_nursery() as nursery:
        async with running(registry):
            registry.tell("a", "wait")
            registry.tell("b", "1")
            await settle()
            nursery.start_soon(ask)
            await settle()
            nursery.start_soon(_open_after, 2.0, world.gate)
        assert refused == ["dropped"]
        with pytest.raises(ActorStopped):
            registry.tell("c", "1")
    assert world.of("a") == ["started", "wait", "stopping", "stopped"]
    assert world.of("b") == ["started", "1", "stopping", "stopped"]
    assert registry.active == 0


async def _open_after(seconds: float, gate: trio.Event) -> None:
    await trio.sleep(seconds)
    gate.set()


async def test_an_actor_that_does_not_stop_in_time_is_cancelled(world, autojump_clock):
    registry = world.registry()
    async with running(registry, shutdown_seconds=3.0):
        registry.tell("a", "wait")
        registry.tell("b", "1")
        await settle()
        before = trio.current_time()
    assert trio.current_time() - before == pytest.approx(3.0)
    assert world.of("a") == ["started", "wait"]
    assert world.of("b") == ["started", "1", "stopping", "stopped"]


async def test_a_crash_callback_that_fails_ends_the_registry_loudly(world, autojump_clock):
    def fail(key: str, error: BaseException) -> None:
        raise RuntimeError("callback")

    registry = world.registry(on_crash=fail)
    with pytest.raises(ExceptionGroup) as caught:
        await _run_and_crash(registry)
    assert caught.value.subgroup(RuntimeError) is not None
    assert registry.active == 0


async def _run_and_crash(registry: Registry[str, str]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.run, ChildContext("registry"))
        await settle()
        registry.tell("a", "crash")


async def test_the_tree_shows_the_actors_and_how_many_it_leaves_out(world, autojump_clock):
    async with running(world.registry(name="conversations")) as registry:
        for key in "abc":
            registry.tell(key, "wait")
        assert {node.state for node in registry.snapshot().children} == {NodeState.STARTING}
        await settle()
        assert render(registry.snapshot(2)).splitlines() == [
            "conversations (registry) running",
            "├─ a (actor) running",
            "├─ b (actor) running",
            "└─ ... and 1 more (actors) running",
        ]
        world.gate.set()


@pytest.mark.parametrize(
    "change", [{"idle_seconds": 0.0}, {"max_actors": 0}, {"mailbox_capacity": 0}, {"stop_seconds": float("inf")}]
)
def test_limits_that_mean_nothing_are_refused(world, change):
    with pytest.raises(ValueError, match="registry"):
        world.registry(**change)


async def test_a_stuck_actor_is_killed_and_its_messages_go_to_a_fresh_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    world = World()
    async with running(world.registry()) as registry:
        assert not registry.kill("a")
        registry.tell("a", "wait")
        await trio.testing.wait_all_tasks_blocked()
        registry.tell("a", "note")
        assert registry.kill("a")
        await trio.testing.wait_all_tasks_blocked()
        assert world.of("a")[-1] == "note"
        assert world.alive["a"] == 1
        assert world.crashes == []

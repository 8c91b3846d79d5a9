"""The registry of actors that crash, do not start, hang or are stuck: who is harmed, what becomes of what waits."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.errors import ActorStopped
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.registry import Registry
from tests.unit.runtime.registry_world import Worker, World, running, settle


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

"""The registry: activation, passivation and its race, limits, stopping."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.errors import ActorStopped, AskTimeout, MailboxFull, RegistryFull
from lobu_actors.runtime.mailbox import Overflow
from lobu_actors.runtime.tree import NodeState, render
from tests.unit.runtime.registry_world import REQUEST, running, settle


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

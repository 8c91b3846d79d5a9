"""A turn whose owner lives and does nothing: found by the promise that it let pass, and not sooner."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.conversation.promises import MESSAGE_SECONDS, Promise, Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Accepted, Activation, Lease, NewTurn, StartRun
from supervisor.upkeep.deadlines import Deadlines
from supervisor.upkeep.sweeper import OVERDUE_SECONDS, Sweeper

REF = ConversationRef("org", "echo", "echo_u_org")


class World:
    """A turn of host h1 on a memory store that lives by the trio clock."""

    def __init__(self) -> None:
        self.store = MemoryStore(clock=trio.current_time)
        self.promises = Promises()
        self.taken_over: list[float] = []

    async def accept(self) -> tuple[Lease, str]:
        store = self.store
        await store.ensure_organization("org")
        await store.open_conversation(REF, "u")
        await store.register_host("h1", name="h1", link_url=None, version="1", ttl_seconds=10_000)
        accepted = await store.accept_turn(NewTurn(REF, new_id(), "m1", "hi"), max_owed=10)
        activation = await store.activate(REF, "h1")
        assert isinstance(accepted, Accepted)
        assert isinstance(activation, Activation)
        self.began = trio.current_time()
        return activation.lease, accepted.turn.turn_id

    async def begin(self) -> Promise:
        lease, turn_id = await self.accept()
        assert await self.store.start_run(lease, StartRun("r1", (turn_id,), 1, None, None)) is not None
        promise = Promise("r1", (turn_id,), trio.current_time() + 5)
        self.promises.made[REF] = promise
        return promise

    async def run(self, seconds: float) -> None:
        """Deadlines and sweeper of h1, for so long."""
        sweeper = Sweeper(
            self.store,
            lambda: "h1",
            lambda owed: None,
            lambda ref: self.taken_over.append(trio.current_time()),
            self.promises.seems_stuck,
            interval_seconds=1,
            batch=10,
            older_than_seconds=1,
        )
        deadlines = Deadlines(self.store, lambda: "h1", self.promises, RunningClock(), lambda ref: None)
        contexts = [ChildContext("deadlines"), ChildContext("sweeper")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(deadlines.run, contexts[0]))
            nursery.start_soon(partial(sweeper.run, contexts[1]))
            await trio.sleep(seconds)
            for context in contexts:
                context.stopping.set()


async def test_a_promise_that_is_not_kept_is_found_out(autojump_clock: MockClock) -> None:
    world = World()
    promise = await world.begin()
    await world.run(5 + OVERDUE_SECONDS + 3)
    assert len(world.taken_over) == 1
    assert promise.until + OVERDUE_SECONDS <= world.taken_over[0] <= promise.until + OVERDUE_SECONDS + 2


async def test_a_promise_that_is_renewed_in_time_is_left_alone(autojump_clock: MockClock) -> None:
    world = World()
    promise = await world.begin()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 60)
        for _ in range(12):
            world.promises.made[REF] = Promise(promise.run_id, promise.turn_ids, trio.current_time() + 20)
            await trio.sleep(5)
    assert world.taken_over == []


async def test_after_an_outage_the_owner_has_time_to_say_that_it_is_well(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    promise = await world.begin()
    extend, find = world.store.extend_deadlines, world.store.find_overdue

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 100)
        await trio.sleep(3)
        monkeypatch.setattr(world.store, "extend_deadlines", away)
        monkeypatch.setattr(world.store, "find_overdue", away)
        await trio.sleep(40)
        world.promises.made[REF] = Promise(promise.run_id, promise.turn_ids, trio.current_time() + 500)
        monkeypatch.setattr(world.store, "find_overdue", find)
        await trio.sleep(OVERDUE_SECONDS / 2)
        monkeypatch.setattr(world.store, "extend_deadlines", extend)
    assert world.taken_over == []


async def test_an_actor_that_is_at_one_message_for_too_long_is_found_out_before_it_has_a_run(
    autojump_clock: MockClock,
) -> None:
    world = World()
    await world.accept()
    world.promises.begin(REF)
    await world.run(MESSAGE_SECONDS + OVERDUE_SECONDS + 3)
    assert len(world.taken_over) == 1
    allowed = MESSAGE_SECONDS + OVERDUE_SECONDS
    assert allowed <= world.taken_over[0] - world.began <= allowed + 2


async def test_an_actor_that_goes_from_one_message_to_the_next_is_not_stuck(autojump_clock: MockClock) -> None:
    world = World()
    await world.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 3 * MESSAGE_SECONDS)
        for _ in range(3):
            world.promises.begin(REF)
            await trio.sleep(MESSAGE_SECONDS)
            world.promises.end(REF)
    assert world.taken_over == []


async def test_an_actor_that_waited_for_the_store_has_time_to_go_on(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    await world.accept()
    find = world.store.find_owed

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.store, "find_owed", away)
    world.promises.begin(REF)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 3 * MESSAGE_SECONDS)
        await trio.sleep(2 * MESSAGE_SECONDS)
        monkeypatch.setattr(world.store, "find_owed", find)
        await trio.sleep(OVERDUE_SECONDS / 2)
        world.promises.end(REF)
    assert world.taken_over == []


async def test_a_deadline_that_could_not_be_written_is_written_at_the_next_look(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    promise = await world.begin()
    extend = world.store.extend_deadlines

    async def locked(*_: object, **__: object) -> set[str]:
        return set()

    monkeypatch.setattr(world.store, "extend_deadlines", locked)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, 5 + OVERDUE_SECONDS + 3)
        await trio.sleep(2)
        monkeypatch.setattr(world.store, "extend_deadlines", extend)
    assert len(world.taken_over) == 1, f"nobody would know that {promise} was broken"


async def test_deadlines_of_a_conversation_that_was_taken_over_are_fenced_writes(autojump_clock: MockClock) -> None:
    world = World()
    await world.begin()
    fenced = telemetry.FENCED_WRITES.labels("extend_deadlines")
    before = fenced._value.get()
    await world.run(3)
    assert fenced._value.get() == before, "it is the owner"
    await world.store.register_host("h2", name="h2", link_url=None, version="1", ttl_seconds=10_000)
    await world.store.declare_host_dead("h1")
    assert isinstance(await world.store.activate(REF, "h2"), Activation)
    await world.run(3)
    assert fenced._value.get() > before

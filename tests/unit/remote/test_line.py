"""Who waits for a place that a conversation of another host has: it is asked for, and it is load and no fault."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Container
from typing import Any, cast

import attrs
import pytest
import trio
from trio.testing import MockClock

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.worker_door import Joining, memory_pipe
from supervisor.remote.line import Line, Link
from supervisor.remote.worker import NoPlace

STARTUP_SECONDS, PLACE_SECONDS = 0.2, 1.5


@attrs.frozen
class Request:
    ref: ConversationRef
    startup_seconds: float = STARTUP_SECONDS


@attrs.define(eq=False)
class Worker:
    request: Request
    machine: str = ""
    asked_at: float = attrs.field(factory=time.monotonic)


@attrs.define
class Others:
    """The other hosts: whether one of them has a place, and how often they were asked to give one up."""

    have: bool = False
    asked: int = 0
    silent: bool = False

    async def give_up(self) -> bool:
        self.asked += 1
        if self.silent:
            await trio.sleep_forever()
        return self.have


class World:
    def __init__(self) -> None:
        self.others = Others()
        self.here: list[set[ConversationRef]] = []  # who of this host was asked to make room
        self.line = Line("gpu", PLACE_SECONDS, self._make_room, self.others.give_up)

    def _make_room(self, refs: Container[ConversationRef]) -> None:
        self.here.append(set(cast(Any, refs)))

    def place(self) -> Link:
        return Link(memory_pipe()[0], Joining("org", "gpu"))

    def worker(self, name: str = "one") -> Any:
        return Worker(Request(ConversationRef("org", "agent", name)))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with trio.fail_after(10):
        yield World()


async def test_a_place_that_another_host_has_is_asked_for_and_waited_for(
    world: World, autojump_clock: MockClock
) -> None:
    world.others.have = True
    place = world.place()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def given_up_at_last() -> None:
            await trio.sleep(3 * STARTUP_SECONDS)
            world.line.offer(place)

        assert await world.line.claim(world.worker()) is place.pipe
    assert world.others.asked >= 1


async def test_where_nobody_has_one_the_operator_learns_soon(world: World, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(NoPlace, match="lobu worker connect"):
        await world.line.claim(world.worker())
    assert trio.current_time() - began < PLACE_SECONDS
    assert world.others.asked == 1


async def test_others_that_do_not_answer_keep_nobody(world: World, autojump_clock: MockClock) -> None:
    world.others.silent = True
    with pytest.raises(NoPlace):
        await world.line.claim(world.worker())
    world.line.offer(place := world.place())
    assert await world.line.claim(world.worker()) is place.pipe


async def test_a_place_elsewhere_is_waited_for_no_longer_than_is_set(world: World, autojump_clock: MockClock) -> None:
    world.others.have = True
    with pytest.raises(NoPlace, match=f"within {PLACE_SECONDS:g} s"):
        await world.line.claim(world.worker())


async def test_who_is_cancelled_while_waiting_is_out_of_the_line(world: World, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.line.claim, world.worker("one"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    world.line.offer(place := world.place())
    assert (world.line.give_up(), list(world.line.idle)) == (False, [place])


async def test_a_place_that_is_granted_to_who_is_cancelled_is_the_next_ones(
    world: World, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.line.claim, world.worker("one"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        world.line.offer(place := world.place())
    assert (world.line.give_up(), list(world.line.idle), place.worker) == (False, [place], None)


async def test_this_hosts_own_are_asked_first_and_only_the_first_in_line_asks_others(
    world: World, autojump_clock: MockClock
) -> None:
    world.line.offer(world.place())
    holder = world.worker("holder")
    await world.line.claim(holder)
    async with trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(world.line.claim, world.worker(name))
        await trio.testing.wait_all_tasks_blocked()
        assert (world.others.asked, world.here) == (0, 3 * [{holder.request.ref}])
        await trio.sleep(1.2)  # two rounds
        assert world.others.asked == 2
        nursery.cancel_scope.cancel()


async def test_what_another_host_asks_for_is_given_up_by_who_is_at_rest(
    world: World, autojump_clock: MockClock
) -> None:
    assert world.line.give_up() is False
    world.line.offer(world.place())
    holder = world.worker("holder")
    await world.line.claim(holder)
    world.here.clear()
    assert (world.line.give_up(), world.here) == (True, [{holder.request.ref}])
    world.line.gone(holder)
    assert world.line.give_up() is False

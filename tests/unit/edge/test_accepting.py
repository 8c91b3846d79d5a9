"""What an edge does with what an actor holds ready: it settles it, whatever becomes of the message."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from msgspec.structs import replace

from edge.accepting import Acceptance
from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import TurnStatus
from lobu_actors.gateway.standby import EXPECTED_POINTS, Standby
from lobu_actors.store.errors import StoreError, StoreOutcomeUnknown, StoreRejected, StoreUnavailable
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Accepted, Activation, NewTurn, Refused, Verdict
from lobu_actors.store.standby_records import NextRun
from tests.fakes.edge_world import EdgeWorld

HOST = "h1"


class LosingStore(MemoryStore):
    """Raises what it is told to, before or behind the commit."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[StoreError] = []
        self.behind: list[StoreError] = []

    async def accept_turn(self, turn: NewTurn, **options: Any) -> Accepted | Refused:
        if self.before:
            raise self.before.pop(0)
        outcome = await super().accept_turn(turn, **options)
        if self.behind:
            raise self.behind.pop(0)
        return outcome


@attrs.define
class Scene:
    world: EdgeWorld
    store: LosingStore
    ref: ConversationRef
    standby: Standby
    acceptance: Acceptance
    is_there: bool = True  # the actor
    heard: list[Standby] = attrs.field(factory=list)

    async def accept(self, **fields: Any) -> Accepted | Refused:
        return await self.acceptance.accept(NewTurn(self.ref, new_id(), new_id(), "hello", **fields))

    @property
    def hints(self) -> list[str]:
        return [turn.turn_id for turn in self.world.gateway.hints]


@pytest.fixture
async def scene() -> Scene:
    store = LosingStore()
    world = await EdgeWorld.make(EdgeSettings(accept_seconds=0.5), store)
    ref = await world.conversation()
    await store.register_host(HOST, name=HOST, link_url=None, version="0", ttl_seconds=600)
    activation = await store.activate(ref, HOST)
    assert isinstance(activation, Activation)

    def settled(standby: Standby) -> bool:
        scene.heard.append(standby)
        return scene.is_there

    standby = Standby(NextRun(activation.lease, new_id(), 7, 2.5), settled)
    world.gateway.standbys.put(standby)
    scene = Scene(world, store, ref, standby, Acceptance(store, world.gateway, world.settings))
    return scene


async def test_the_run_begins_with_the_message_and_the_actor_hears_it_so(scene: Scene) -> None:
    outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert outcome.begun
    assert (scene.heard, scene.standby.turn) == ([scene.standby], outcome.turn)
    assert scene.hints == [], "it knows already"
    [turn] = scene.store.tables.turns.values()
    assert turn.status is TurnStatus.RUNNING


async def test_an_actor_that_has_ended_is_told_as_of_any_message(scene: Scene) -> None:
    scene.is_there = False
    outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert scene.hints == [outcome.turn.turn_id]


async def test_it_is_taken_once(scene: Scene) -> None:
    first, second = await scene.accept(), await scene.accept()
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.begun, second.begun) == (True, False)
    assert scene.hints == [second.turn.turn_id]


async def test_what_waits_behind_others_is_given_back_and_hinted(scene: Scene) -> None:
    await scene.world.message(scene.ref)
    outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert scene.hints == [outcome.turn.turn_id]
    assert (scene.standby.settled, scene.standby.turn, scene.standby.known) == (True, None, True)


async def test_a_refusal_gives_it_back(scene: Scene) -> None:
    await scene.store.mark_closing(scene.ref)
    assert await scene.accept() == Refused("closed")
    assert (scene.standby.settled, scene.standby.turn, scene.standby.known) == (True, None, True)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreRejected("no")])
async def test_what_never_happened_gives_it_back(scene: Scene, error: StoreError) -> None:
    scene.store.before = [error]
    with pytest.raises(type(error)):
        await scene.accept()
    assert (scene.standby.settled, scene.standby.turn, scene.standby.known) == (True, None, True)


async def test_a_lost_answer_is_asked_for_again(scene: Scene) -> None:
    scene.store.behind = [StoreOutcomeUnknown("lost")]
    outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert (outcome.created, outcome.begun) == (False, True)
    assert (scene.standby.turn, scene.standby.known) == (outcome.turn, True)


@pytest.mark.parametrize("then", [StoreOutcomeUnknown("lost"), StoreUnavailable("away")])
async def test_an_answer_that_stays_lost_is_said_to_be_so(scene: Scene, then: StoreError) -> None:
    scene.store.before = [StoreOutcomeUnknown("lost"), *[then] * 100]
    with trio.fail_after(10), pytest.raises(StoreUnavailable):
        await scene.accept()
    assert (scene.standby.settled, scene.standby.turn, scene.standby.known) == (True, None, False)


@pytest.mark.parametrize(
    "fields", [{"content": "/new"}, {"verdict": Verdict("GUARDRAIL_REJECTED", "no")}, {"file_ids": ("f",)}]
)
async def test_what_no_worker_gets_as_it_is_leaves_it_where_it_is(scene: Scene, fields: dict[str, Any]) -> None:
    turn = replace(NewTurn(scene.ref, new_id(), new_id(), "hello"), **fields)
    scene.store.before = [StoreRejected("enough")]
    with pytest.raises(StoreRejected):
        await scene.acceptance.accept(turn)
    assert not scene.standby.taken


@pytest.mark.parametrize("points", range(EXPECTED_POINTS))
async def test_an_actor_that_tidies_up_gets_its_turn_first(scene: Scene, points: int) -> None:
    standbys = scene.world.gateway.standbys
    standbys.withdraw(scene.ref)
    standbys.expect(scene.ref)

    async def tidy_up() -> None:
        for _ in range(points):
            await trio.lowlevel.checkpoint()
        standbys.put(scene.standby)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tidy_up)
        await trio.lowlevel.checkpoint()  # trio runs who is ready in one order or the other
        outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert outcome.begun


@pytest.mark.parametrize("says_so", [True, False])
async def test_it_is_not_waited_for_longer_than_that(scene: Scene, says_so: bool) -> None:
    standbys = scene.world.gateway.standbys
    standbys.withdraw(scene.ref)
    standbys.expect(scene.ref)
    if says_so:
        standbys.withdraw(scene.ref)
    outcome = await scene.accept()
    assert isinstance(outcome, Accepted)
    assert not outcome.begun

"""A host whose conversation was taken over while its own clock stood still: a machine that slept trusts itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from lobu_actors.contract.frames import Heartbeat
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Accepted, Activation, Agent, NewTurn
from supervisor.upkeep.deadlines import INTERVAL_SECONDS, STEP_SECONDS, Deadlines
from tests.fakes.actor_world import HOST, ActorWorld, actors

REF = ConversationRef("acme", "echo", "echo_ann_acme")
BEAT_SECONDS = 2.0
ENOUGH_SECONDS = STEP_SECONDS + INTERVAL_SECONDS + BEAT_SECONDS


async def test_its_worker_is_ended_soon_and_nothing_else(autojump_clock: MockClock) -> None:
    store = MemoryStore(clock=trio.current_time)
    await store.ensure_organization("acme")
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True)])
    await store.open_conversation(REF, "ann")
    async with actors(store) as here, trio.open_nursery() as nursery:
        environment, give_up = here.environment, here.conversations.give_up
        deadlines = Deadlines(store, lambda: HOST, environment.promises, environment.running, give_up)
        nursery.start_soon(deadlines.run, ChildContext("deadlines"))
        killed = await _run_a_turn(store, here, nursery)
        await store.register_host("other", name="other", link_url=None, version="1", ttl_seconds=600)
        await trio.sleep(3 * ENOUGH_SECONDS)
        assert not killed.is_set()
        await _take_over(store)
        with trio.fail_after(ENOUGH_SECONDS):
            await killed.wait()
        await trio.sleep(1)
        assert REF not in environment.promises.made
        nursery.cancel_scope.cancel()


async def _run_a_turn(store: MemoryStore, here: ActorWorld, nursery: trio.Nursery) -> trio.Event:
    """With a worker that lives and never ends; gives when it was killed."""
    accepted = await store.accept_turn(NewTurn(REF, new_id(), "m1", "hi"), max_owed=9)
    assert isinstance(accepted, Accepted)
    worker = await here.worker_of(accepted.turn)
    await worker.given.wait()

    async def beat() -> None:
        while not worker.killed.is_set():
            await worker.says(Heartbeat())
            await trio.sleep(BEAT_SECONDS)

    nursery.start_soon(beat)
    return worker.killed


async def _take_over(store: MemoryStore) -> None:
    """By the database's clock its lease was over; when it wakes up, it renews that as if nothing had been."""
    await store.renew_host(HOST, ttl_seconds=-1, state=HostState.ACTIVE)
    assert isinstance(await store.activate(REF, "other"), Activation)
    await store.renew_host(HOST, ttl_seconds=600, state=HostState.ACTIVE)

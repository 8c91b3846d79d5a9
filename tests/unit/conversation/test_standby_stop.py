"""A host stops just when a message was accepted together with its run: nobody has seen it, so it is no lost attempt."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from lobu_actors.contract.frames import Complete, TurnFrame
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import TurnStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Accepted, Agent, Lease, NewTurn, Owed, Turn
from tests.fakes.actor_world import HOST, ActorWorld, actors

REF = ConversationRef("acme", "echo", "echo_ann_acme")
SLOW_SECONDS = 0.5


class SlowLook(MemoryStore):
    async def load_owed(self, lease: Lease, *, limit: int) -> list[Turn | CorruptMarker] | None:
        await trio.sleep(SLOW_SECONDS)
        return await super().load_owed(lease, limit=limit)


async def test_what_began_with_its_acceptance_is_handed_over(autojump_clock: MockClock) -> None:
    store = SlowLook(clock=trio.current_time)
    await store.ensure_organization("acme")
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True)])
    await store.open_conversation(REF, "ann")
    async with actors(store) as here:
        await _come_to_rest(store, here)
        standby = await here.conversations.stand_by(REF)
        assert standby is not None
        here.conversations.sweep(Owed(REF, closing=False))  # the actor is at this when its host stops
        await trio.sleep(SLOW_SECONDS / 2)
        accepted = await store.accept_turn(NewTurn(REF, new_id(), "m2", "hi"), max_owed=9, run=standby.run)
        assert isinstance(accepted, Accepted)
        assert accepted.begun
        assert standby.begun(accepted.turn)
        here.stopping.set()
        await trio.sleep(5)
        turn = await store.find_turn(REF, "m2")
        assert turn is not None
        assert (turn.status, turn.attempt, turn.failures) == (TurnStatus.QUEUED, 2, 0)
        assert await store.find_owner(REF) is None


async def _come_to_rest(store: MemoryStore, here: ActorWorld) -> None:
    """With a worker that waits."""
    accepted = await store.accept_turn(NewTurn(REF, new_id(), "m1", "hi"), max_owed=9)
    assert isinstance(accepted, Accepted)
    worker = await here.worker_of(accepted.turn)
    await worker.given.wait()
    [frame] = worker.frames
    assert isinstance(frame, TurnFrame)
    await worker.says(Complete(run_id=frame.run_id))
    await trio.sleep(1)
    assert await store.find_owner(REF) == HOST

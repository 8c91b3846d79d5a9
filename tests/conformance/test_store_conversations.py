"""Opening conversations and accepting turns: the same on both stores."""

import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import TurnStatus
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.records import Accepted, Refused

REF = ConversationRef("acme", "echo", "echo_ann_acme")


async def test_opening_makes_once_and_then_gives_what_is_there(store):
    with pytest.raises(StoreRejected):
        await store.open_conversation(REF, "ann")
    await store.ensure_organization("acme")
    made = await store.open_conversation(REF, "ann", model="m/1")
    assert (made.ref, made.user_id, made.generation, made.last_seq, made.model) == (REF, "ann", 1, 0, "m/1")
    assert not made.closing
    assert not made.closed
    again = await store.open_conversation(attrs_ref(agent_id="other"), "bob", model="m/2")
    assert again == made
    assert await store.find_conversation("acme", REF.conversation_id) == made
    assert await store.find_conversation("other", REF.conversation_id) is None


def attrs_ref(**changes: str) -> ConversationRef:
    values = {"organization_id": "acme", "agent_id": "echo", "conversation_id": REF.conversation_id}
    return ConversationRef(**(values | changes))


async def test_opening_at_once_makes_one(store):
    await store.ensure_organization("acme")
    opened = []

    async def open_it() -> None:
        opened.append(await store.open_conversation(REF, "ann"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(open_it)
    assert opened == [opened[0]] * 8


async def test_a_list_is_newest_first_and_bounded(store):
    await store.ensure_organization("acme")
    for name in "abc":
        await store.open_conversation(attrs_ref(conversation_id=name), "ann")
    assert [c.ref.conversation_id for c in await store.list_conversations("acme", limit=2)] == ["c", "b"]
    assert await store.list_conversations("other", limit=2) == []


async def test_accepting_and_what_it_says(owner, helpers):
    new = helpers.new_turn(owner.ref, "m1")
    accepted = await owner.store.accept_turn(new, max_owed=10)
    turn = accepted.turn
    assert accepted.created
    assert (turn.turn_id, turn.message_id, turn.content, turn.payload) == (new.turn_id, "m1", "hello", new.payload)
    assert (turn.status, turn.attempt, turn.failures, turn.position) == (TurnStatus.QUEUED, 1, 0, 0)
    assert turn.first_seq == 0
    assert await owner.store.find_turn(owner.ref, "m1") == turn
    assert await owner.store.find_turn(owner.ref, "m2") is None
    assert await owner.store.find_owed_turn(owner.ref) == turn
    second = await owner.accept("m2")
    assert await owner.store.find_owed_turn(owner.ref) == turn
    assert second.position == 1
    assert second.accepted_at > turn.accepted_at
    found = await owner.store.find_conversation("acme", owner.ref.conversation_id)
    assert (found.queued, found.running) == (2, 0)
    assert found.last_activity_at == second.accepted_at


async def test_the_same_message_is_the_same_turn(owner, helpers):
    first = await owner.accept("m1")
    again = await owner.store.accept_turn(helpers.new_turn(owner.ref, "m1"), max_owed=1)
    assert again == Accepted(first, created=False)
    # Also when the queue is full, and after it has ended.
    run_id = await owner.start(first)
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, first))
    await owner.store.mark_closing(owner.ref)
    ended = await owner.store.accept_turn(helpers.new_turn(owner.ref, "m1"), max_owed=1)
    assert not ended.created
    assert ended.turn.status is TurnStatus.COMPLETED


async def test_the_same_call_again_is_the_same_turn(owner, helpers):
    new = helpers.new_turn(owner.ref, "m1")
    first = await owner.store.accept_turn(new, max_owed=10)
    assert await owner.store.accept_turn(new, max_owed=10) == replace(first, created=False)


async def test_a_turn_id_belongs_to_one_message(owner, helpers):
    new = helpers.new_turn(owner.ref, "m1")
    await owner.store.accept_turn(new, max_owed=10)
    with pytest.raises(StoreRejected):
        await owner.store.accept_turn(replace(new, message_id="m2"), max_owed=10)
    assert await owner.store.find_turn(owner.ref, "m2") is None


async def test_refusals(owner, helpers):
    missing = helpers.new_turn(ConversationRef("acme", "echo", "nowhere"))
    assert await owner.store.accept_turn(missing, max_owed=10) == Refused("missing")
    wrong_agent = helpers.new_turn(ConversationRef("acme", "other", owner.ref.conversation_id))
    assert await owner.store.accept_turn(wrong_agent, max_owed=10) == Refused("missing")
    await owner.accept(max_owed=1)
    assert await owner.store.accept_turn(helpers.new_turn(owner.ref), max_owed=1) == Refused("full")
    assert await owner.store.mark_closing(owner.ref)
    assert await owner.store.accept_turn(helpers.new_turn(owner.ref), max_owed=10) == Refused("closed")
    assert (await owner.store.find_conversation("acme", owner.ref.conversation_id)).closing


async def test_marking_what_is_not_there(owner):
    assert not await owner.store.mark_closing(ConversationRef("acme", "echo", "nowhere"))


async def test_accepting_one_message_many_times_at_once(owner, helpers):
    results = []

    async def accept() -> None:
        results.append(await owner.store.accept_turn(helpers.new_turn(owner.ref, "m1"), max_owed=100))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(accept)
    assert sum(result.created for result in results) == 1
    assert len({result.turn.turn_id for result in results}) == 1


async def test_the_queue_is_in_order_of_acceptance(owner):
    turns = [await owner.accept(new_id()) for _ in range(5)]
    assert await owner.store.load_owed(owner.lease, limit=10) == turns
    assert await owner.store.load_owed(owner.lease, limit=2) == turns[:2]


async def test_payload_comes_back_as_it_was(owner, helpers):
    payload = {"a": [1, 2.5, None, True], "ü": {"deep": "\N{GRINNING FACE}", "%s": "%(x)s"}}
    new = replace(helpers.new_turn(owner.ref, "m1"), payload=payload, content="50% \\ ' \" \n")
    await owner.store.accept_turn(new, max_owed=10)
    turn = await owner.store.find_turn(owner.ref, "m1")
    assert (turn.payload, turn.content) == (payload, new.content)

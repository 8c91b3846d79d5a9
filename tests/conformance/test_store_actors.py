"""Leases, runs and their guards: the same on both stores."""

import pytest
from msgspec.structs import replace

from lobu_actors.contract.events import EventType, restart
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.records import Activation, Agent, HeldElsewhere, NewEvent, RequeueRun, StartRun

QUESTION = NewEvent(EventType.QUESTION, {"questionId": "q1"})


async def test_activation_tells_all_that_an_actor_needs(owner, helpers):
    store = owner.store
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", settings={"x": 1})])
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    await store.finish_run(owner.lease, helpers.finish(run_id, first, segment=helpers.segment(b"abc")))
    again = await store.activate(owner.ref, "h1")
    assert again.lease.epoch == owner.lease.epoch + 1
    assert again.agent.settings == {"x": 1}
    assert again.owed == (second,)
    assert (again.snapshot.run_id, again.snapshot.length, again.snapshot.generation) == (run_id, 3, 1)
    assert again.conversation.last_seq == 1
    assert again.live_run is None


async def test_activation_shows_the_run_that_was_left(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.declare_host_dead("h1")
    taken = await owner.store.activate(owner.ref, await helpers.alive(owner.store, "h2"))
    assert taken.live_run.run_id == run_id
    assert (taken.live_run.host_id, taken.live_run.epoch, taken.live_run.worker_pid) == ("h1", owner.lease.epoch, 1)
    assert [owed.status for owed in taken.owed] == [TurnStatus.RUNNING]
    assert taken.agent is None


async def test_a_cancel_that_was_accepted_outlives_who_accepted_it(owner, helpers):
    store, old = owner.store, owner.lease
    turn = await owner.accept()
    assert await store.request_cancel(old, "no-such-run") is False
    run_id = await owner.start(turn)
    assert await store.request_cancel(old, run_id) is True
    assert await store.request_cancel(old, run_id) is True, "asked again, the same answer"
    await store.declare_host_dead("h1")
    taken = await store.activate(owner.ref, await helpers.alive(store, "h2"))
    assert taken.live_run.cancel_requested is True
    assert await store.request_cancel(old, run_id) is False, "the lease is lost"
    assert await store.finish_run(taken.lease, helpers.finish(run_id, turn)) is not None
    assert await store.request_cancel(taken.lease, run_id) is False, "the run is over"


async def test_a_live_holder_keeps_its_lease(owner, helpers):
    await helpers.alive(owner.store, "h2")
    assert await owner.store.activate(owner.ref, "h2") == HeldElsewhere("h1")
    assert await owner.store.append_event(owner.lease, QUESTION) is not None


async def test_nothing_for_what_is_not_there_or_not_alive(owner, helpers):
    store = owner.store
    assert await store.activate(ConversationRef("acme", "echo", "nowhere"), "h1") is None
    assert await store.activate(ConversationRef("acme", "other", owner.ref.conversation_id), "h1") is None
    assert await store.activate(owner.ref, "unknown") == HeldElsewhere("unknown")
    expired = await helpers.alive(store, "h3", ttl_seconds=0)
    assert await store.activate(owner.ref, expired) == HeldElsewhere("h3")


@pytest.mark.parametrize("how", ["released", "declared dead", "expired"])
async def test_takeover_and_what_the_old_owner_may_still_do(owner, helpers, how):
    store, old = owner.store, owner.lease
    turn = await owner.accept()
    run_id = await owner.start(turn)
    successor = await helpers.alive(store, "h2")
    if how == "released":
        await store.release(old)
        await store.release(old)
    elif how == "declared dead":
        await store.declare_host_dead("h1")
    else:
        await helpers.alive(store, "h1", ttl_seconds=0)
    taken = await store.activate(owner.ref, successor)
    assert isinstance(taken, Activation)
    assert taken.lease.epoch == old.epoch + 1
    assert await store.load_owed(old, limit=10) is None
    assert await store.start_run(old, StartRun(new_id(), (turn.turn_id,), 1, None, None)) is None
    assert await store.finish_run(old, helpers.finish(run_id, turn)) is None
    assert await store.requeue_run(old, RequeueRun(run_id, (turn.turn_id,), failed=True)) is None
    assert await store.append_event(old, QUESTION) is None
    assert await store.close_conversation(old, "deleted") is None
    await store.release(old)
    assert await store.load_owed(taken.lease, limit=10) == list(taken.owed)
    assert await store.read_events(owner.ref, 1, limit=10) == []


async def test_the_same_host_again_is_a_new_epoch(owner):
    again = await owner.store.activate(owner.ref, "h1")
    assert again.lease.epoch == owner.lease.epoch + 1
    assert await owner.store.append_event(owner.lease, QUESTION) is None


async def test_starting_a_run(owner):
    first, second = await owner.accept(), await owner.accept()
    run = StartRun(new_id(), (first.turn_id, second.turn_id), 1, 17, 3.25)
    assert await owner.store.start_run(owner.lease, run) == []
    owed = await owner.store.load_owed(owner.lease, limit=10)
    assert [turn.status for turn in owed] == [TurnStatus.RUNNING] * 2
    found = await owner.store.find_conversation("acme", owner.ref.conversation_id)
    assert (found.queued, found.running) == (0, 2)
    # Asked again after an unknown outcome: the same answer.
    assert await owner.store.start_run(owner.lease, run) == []


async def test_a_run_needs_queued_turns_and_no_other_run(owner, helpers):
    store = owner.store
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert await store.start_run(owner.lease, StartRun(new_id(), (first.turn_id,), 1, None, None)) is None
    assert await store.start_run(owner.lease, StartRun(new_id(), (second.turn_id,), 1, None, None)) is None
    assert await store.start_run(owner.lease, StartRun(new_id(), ("nothing",), 1, None, None)) is None
    assert (await store.load_owed(owner.lease, limit=10))[1].status is TurnStatus.QUEUED
    await store.finish_run(owner.lease, helpers.finish(run_id, first))
    assert await store.start_run(owner.lease, StartRun(run_id, (first.turn_id,), 1, None, None)) is None
    both = StartRun(new_id(), (first.turn_id, second.turn_id), 1, None, None)
    assert await store.start_run(owner.lease, both) is None


async def test_restart_events_are_written_once(owner):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first, second)
    requeue = RequeueRun(run_id, (first.turn_id, second.turn_id), failed=True, error_code="SESSION_TIMEOUT")
    turns = await owner.store.requeue_run(owner.lease, requeue)
    data = tuple(restart(turn.message_id, turn.attempt, "retry") for turn in turns)
    run = StartRun(new_id(), requeue.turn_ids, 2, None, None, data)
    written = await owner.store.start_run(owner.lease, run)
    assert [(event.seq, event.type, event.turn_id) for event in written] == [
        (1, EventType.RESTART, first.turn_id),
        (2, EventType.RESTART, second.turn_id),
    ]
    assert [event.data for event in written] == list(data)
    assert {(event.run_id, event.attempt, event.text_offset) for event in written} == {(run.run_id, 2, 0)}
    assert await owner.store.start_run(owner.lease, run) == written
    assert await owner.store.read_events(owner.ref, 1, limit=10) == written


@pytest.mark.parametrize("failed", [True, False])
@pytest.mark.parametrize("named", [True, False])
async def test_requeueing(owner, failed, named):
    turn = await owner.accept()
    later = await owner.accept()
    run_id = await owner.start(turn)
    requeue = RequeueRun(run_id if named else None, (turn.turn_id,), failed, error_code="X", exit_status="signal 9")
    [again] = await owner.store.requeue_run(owner.lease, requeue)
    expected = replace(turn, attempt=2, failures=int(failed), error_code="X")
    assert again == expected
    assert await owner.store.requeue_run(owner.lease, requeue) == [expected]
    assert await owner.store.load_owed(owner.lease, limit=10) == [expected, later]
    next_run = await owner.start(again)
    assert next_run != run_id


async def test_requeueing_leaves_what_has_ended(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first, second)
    await owner.store.finish_run(owner.lease, helpers.finish(None, first))
    both = RequeueRun(run_id, (first.turn_id, second.turn_id), failed=True)
    assert [turn.turn_id for turn in await owner.store.requeue_run(owner.lease, both)] == [second.turn_id]
    assert (await owner.store.find_turn(owner.ref, first.message_id)).status is TurnStatus.COMPLETED


async def test_requeueing_an_ended_run_is_refused(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn))
    assert await owner.store.requeue_run(owner.lease, RequeueRun(run_id, (turn.turn_id,), failed=True)) is None
    assert await owner.store.requeue_run(owner.lease, RequeueRun(new_id(), (turn.turn_id,), failed=True)) is None


async def test_a_successor_requeues_a_lost_run_without_its_name(owner, helpers):
    turn = await owner.accept()
    await owner.start(turn)
    await owner.store.declare_host_dead("h1")
    taken = await owner.store.activate(owner.ref, await helpers.alive(owner.store, "h2"))
    [again] = await owner.store.requeue_run(taken.lease, RequeueRun(None, (turn.turn_id,), failed=True))
    assert (again.status, again.attempt, again.failures) == (TurnStatus.QUEUED, 2, 1)
    assert await owner.store.start_run(taken.lease, StartRun(new_id(), (turn.turn_id,), 2, None, None)) == []


async def test_events_are_numbered_without_gaps_and_appended_once(owner):
    first = await owner.store.append_event(owner.lease, QUESTION)
    assert (first.seq, first.type, first.data) == (1, QUESTION.type, QUESTION.data)
    assert await owner.store.append_event(owner.lease, QUESTION) == first
    other = replace(QUESTION, data={"questionId": "q2"}, turn_id="t", run_id="r", attempt=2, text_offset=7)
    second = await owner.store.append_event(owner.lease, other)
    assert (second.seq, second.turn_id, second.run_id, second.attempt, second.text_offset) == (2, "t", "r", 2, 7)
    # The same words under a new lease are another event.
    again = await owner.store.activate(owner.ref, "h1")
    assert (await owner.store.append_event(again.lease, QUESTION)).seq == 3
    assert [e.seq for e in await owner.store.read_events(owner.ref, 2, limit=10)] == [2, 3]
    assert [e.seq for e in await owner.store.read_events(owner.ref, 1, limit=2)] == [1, 2]


@pytest.mark.parametrize("type", [EventType.COMPLETE, EventType.AGENT_ERROR, EventType.CANCELLED, EventType.OUTPUT])
async def test_append_event_ends_nothing(owner, type):
    with pytest.raises(ValueError, match=type):
        await owner.store.append_event(owner.lease, NewEvent(type, {}))


async def test_closing_waits_for_what_is_owed(owner, helpers):
    store = owner.store
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await store.mark_closing(owner.ref)
    assert await store.close_conversation(owner.lease, "deleted") is None
    await store.finish_run(owner.lease, helpers.finish(run_id, turn, segment=helpers.segment(b"abc")))
    closed = await store.close_conversation(owner.lease, "deleted")
    assert (closed.seq, closed.type, closed.data) == (2, EventType.CLOSED, {"reason": "deleted"})
    assert await store.close_conversation(owner.lease, "deleted") == closed
    assert await store.read_snapshot(owner.ref) is None
    assert (await store.find_conversation("acme", owner.ref.conversation_id)).closed


async def test_closing_marks_by_itself_and_reopening_is_a_new_generation(owner, helpers):
    store = owner.store
    assert (await store.close_conversation(owner.lease, "deleted")).seq == 1
    other_user = await store.open_conversation(owner.ref, "bob")
    assert other_user.closed
    reopened = await store.open_conversation(owner.ref, "ann", model="m/2")
    assert (reopened.generation, reopened.closing, reopened.closed, reopened.model) == (2, False, False, "m/2")
    turn = await owner.accept()
    assert turn.first_seq == 1
    run_id = await owner.start(turn)
    [event] = await store.finish_run(owner.lease, helpers.finish(run_id, turn))
    assert event.seq == 2


async def test_run_statuses_are_told_apart(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    failed = replace(
        helpers.finish(run_id, turn),
        status=RunStatus.TIMEOUT,
        turn_status=TurnStatus.TIMEOUT,
        error_code="TURN_TIMEOUT",
    )
    assert await owner.store.finish_run(owner.lease, failed) is not None
    found = await owner.store.find_turn(owner.ref, turn.message_id)
    assert (found.status, found.error_code) == (TurnStatus.TIMEOUT, "TURN_TIMEOUT")

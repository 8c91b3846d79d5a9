"""What is known of a turn's life: the same on both stores."""

from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.owed_protocol import OwedNow
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import NewEvent, RequeueRun

MARKS = [(-1.5, "lease", "epoch 1"), (0.5, "sent", None)]


async def test_a_whole_life(owner, helpers):
    turn, other = await owner.accept(), await owner.accept()
    first = await owner.start(turn)
    requeue = RequeueRun(first, (turn.turn_id,), failed=True, error_code="X", exit_status="signal 9", timeline=MARKS)
    [again] = await owner.store.requeue_run(owner.lease, requeue)
    second = await owner.start(again)
    for number, one in enumerate((turn, other)):
        question = NewQuestion(
            f"q{number}", "w1", second, one.turn_id, "Secret?", None,
            events.question(f"q{number}", "Secret?", None, one.message_id), 2, 0,
        )  # fmt: skip
        assert await owner.store.ask_question(owner.lease, question) is not None
    stage = NewEvent(EventType.CANCEL, events.cancel("worker-stopped", turn.message_id), turn_id=turn.turn_id)
    await owner.store.append_event(owner.lease, stage)
    end = helpers.finish(second, again)
    await owner.store.finish_run(owner.lease, replace(end, timeline=MARKS))

    found = await owner.store.read_turn_history(owner.ref, turn.turn_id)
    assert (found.turn_id, found.message_id, found.status) == (turn.turn_id, turn.message_id, TurnStatus.COMPLETED)
    assert [(run.run_id, run.attempt, run.status) for run in found.runs] == [
        (first, 1, RunStatus.REQUEUED),
        (second, 2, RunStatus.COMPLETED),
    ]
    assert [(run.error_code, run.exit_status) for run in found.runs] == [("X", "signal 9"), (None, None)]
    assert [run.marks for run in found.runs] == [tuple(MARKS)] * 2
    assert [(event.type, event.detail) for event in found.events] == [
        (EventType.QUESTION, "q0"),
        (EventType.CANCEL, "worker-stopped"),
        (EventType.COMPLETE, None),
    ]
    times = [found.accepted_ms, *(run.started_ms for run in found.runs), *(event.at_ms for event in found.events)]
    assert times == sorted(times)
    assert abs(found.accepted_ms - turn.accepted_at.timestamp() * 1e3) < 1
    assert found.ended_ms >= found.runs[-1].started_ms
    assert "Secret" not in str(found)


async def test_while_it_runs_and_when_it_never_ran(owner, helpers):
    turn, other = await owner.accept(), await owner.accept()
    run_id = await owner.start(turn)
    running = await owner.store.read_turn_history(owner.ref, turn.turn_id)
    assert [(run.run_id, run.status, run.ended_ms, run.marks) for run in running.runs] == [
        (run_id, RunStatus.LIVE, None, ())
    ]
    assert running.ended_ms is None
    assert await owner.store.finish_run(owner.lease, helpers.finish(None, other)) is not None
    ended = await owner.store.read_turn_history(owner.ref, other.turn_id)
    assert ended.runs == ()
    assert ended.status is TurnStatus.COMPLETED


async def test_a_turn_that_joined_a_run_that_began_before_it(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    late = await owner.accept()
    assert await owner.store.join_run(owner.lease, run_id, late.turn_id)
    assert [run.run_id for run in (await owner.store.read_turn_history(owner.ref, late.turn_id)).runs] == [run_id]
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn, late)) is not None
    found = await owner.store.read_turn_history(owner.ref, late.turn_id)
    assert [run.run_id for run in found.runs] == [run_id]
    assert found.runs[0].started_ms < found.accepted_ms


async def test_of_its_own_conversation_only(owner):
    turn = await owner.accept()
    ref = owner.ref
    for elsewhere in (
        ConversationRef("other", ref.agent_id, ref.conversation_id),
        ConversationRef(ref.organization_id, ref.agent_id, "other"),
        ConversationRef(ref.organization_id, "other", ref.conversation_id),
    ):
        assert await owner.store.read_turn_history(elsewhere, turn.turn_id) is None
    assert await owner.store.read_turn_history(ref, new_id()) is None


async def test_what_is_owed_is_counted(owner, helpers):
    assert await owner.store.count_owed() == OwedNow(0, 0, 0.0)
    turn, _ = await owner.accept(), await owner.accept()
    run_id = await owner.start(turn)
    owed = await owner.store.count_owed()
    assert (owed.queued, owed.running) == (1, 1)
    assert 0 <= owed.oldest_seconds < 60
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn))
    assert (await owner.store.count_owed()).running == 0


async def test_owed_turns_one_by_one(owner, helpers):
    turns = [await owner.accept() for _ in range(3)]
    await owner.start(turns[1])
    found = await owner.store.list_owed(owner.ref.organization_id, limit=2)
    assert [(one.turn_id, one.message_id, one.attempt, one.host_id) for one in found] == [
        (turns[0].turn_id, turns[0].message_id, 1, None),
        (turns[1].turn_id, turns[1].message_id, 1, "h1"),
    ]
    assert {one.conversation_id for one in found} == {owner.ref.conversation_id}
    assert all(0 <= one.age_seconds < 60 for one in found)
    assert await owner.store.list_owed("other", limit=2) == []

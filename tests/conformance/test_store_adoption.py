"""A live run that changes hands, because its worker outlived its supervisor: the same on both stores."""

import attrs
import pytest
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.question_records import AskedQuestion, NewQuestion
from lobu_actors.store.records import (
    Activation,
    FinishRun,
    MarkerDeadline,
    NewEvent,
    RequeueRun,
    StartRun,
    TurnEnd,
)


async def successor(owner, helpers, host_id="h2"):
    """Who has the conversation after its host died."""
    await owner.store.declare_host_dead(owner.lease.host_id)
    found = await owner.store.activate(owner.ref, await helpers.alive(owner.store, host_id))
    assert isinstance(found, Activation)
    return attrs.evolve(owner, lease=found.lease), found


def question(run_id, turn, question_id, text_offset=7):
    data = events.question(question_id, "Sure?", None, turn.message_id)
    return NewQuestion(question_id, f"of-{question_id}", run_id, turn.turn_id, "Sure?", None, data, 1, text_offset)


async def test_run_and_markers_move_to_the_new_lease(owner, helpers):
    first, second, waiting = await owner.accept(), await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert await owner.store.join_run(owner.lease, run_id, second.turn_id)
    heir, activation = await successor(owner, helpers)
    assert (activation.live_run.run_id, activation.live_run.worker_pid) == (run_id, 1)
    adopted = await heir.store.adopt_run(heir.lease, run_id)
    assert 0 <= adopted.age_seconds < 60
    # Its deadlines are the new owner's to promise.
    wanted = [MarkerDeadline(owner.ref.organization_id, turn.turn_id, run_id, 60) for turn in (first, second, waiting)]
    assert await owner.store.extend_deadlines("h1", wanted) == set()
    assert await owner.store.extend_deadlines("h2", wanted) == {first.turn_id, second.turn_id}
    # And only the new owner can end it.
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, first, second)) is None
    written = await heir.store.finish_run(heir.lease, helpers.finish(run_id, first, second))
    assert [event.turn_id for event in written] == [first.turn_id, second.turn_id]
    assert [turn.turn_id for turn in await heir.store.load_owed(heir.lease, limit=9)] == [waiting.turn_id]


async def test_once_more_is_the_same(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.ask_question(owner.lease, question(run_id, turn, "q-1")) is not None
    heir, _ = await successor(owner, helpers)
    first = await heir.store.adopt_run(heir.lease, run_id)
    again = await heir.store.adopt_run(heir.lease, run_id)
    assert replace(again, age_seconds=0) == replace(first, age_seconds=0)
    third, activation = await successor(heir, helpers, "h3")
    assert activation.live_run.epoch == heir.lease.epoch, "the run knows its owners"
    assert await third.store.adopt_run(third.lease, run_id) is not None
    assert await heir.store.adopt_run(heir.lease, run_id) is None
    assert await third.store.finish_run(third.lease, helpers.finish(run_id, turn)) is not None


async def test_what_the_owner_before_had_promised_is_not_held_against_the_new_one(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    passed = MarkerDeadline(owner.ref.organization_id, turn.turn_id, run_id, -1)
    await owner.store.extend_deadlines("h1", [passed])
    heir, _ = await successor(owner, helpers)
    assert await heir.store.adopt_run(heir.lease, run_id) is not None
    assert await heir.store.find_overdue(limit=10) == []


async def test_a_lost_lease_adopts_nothing(owner, helpers):
    run_id = await owner.start(await owner.accept())
    heir, _ = await successor(owner, helpers)
    assert await owner.store.adopt_run(owner.lease, run_id) is None
    assert await heir.store.adopt_run(heir.lease, run_id) is not None


@pytest.mark.parametrize("end", ["finished", "requeued", "never was"])
async def test_only_a_live_run_is_adopted(owner, helpers, end):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    if end == "finished":
        assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    elif end == "requeued":
        assert await owner.store.requeue_run(owner.lease, RequeueRun(run_id, (turn.turn_id,), failed=True)) is not None
    else:
        run_id = "never-was"
    heir, activation = await successor(owner, helpers)
    assert activation.live_run is None or run_id == "never-was"
    assert await heir.store.adopt_run(heir.lease, run_id) is None


async def test_another_conversations_run_is_not_adopted(owner, helpers, make_scene):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    scene = await make_scene(owner.store)
    other = await owner.store.activate(scene.ref, "h1")
    assert await owner.store.adopt_run(other.lease, run_id) is None
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None


async def test_its_text_began_behind_what_does_not_speak_of_it(owner, helpers):
    """A terminal event before, a question in it, a refused message's end while it ran."""
    earlier, turn, refused = await owner.accept(), await owner.accept(), await owner.accept()
    before = await owner.start(earlier)
    end = replace(helpers.finish(before, earlier), attempt=None, text_offset=None)
    [ended] = await owner.store.finish_run(owner.lease, end)
    run_id = await owner.start(turn)
    assert (await owner.store.adopt_run(owner.lease, run_id)).start_seq == ended.seq
    asked = await owner.store.ask_question(owner.lease, question(run_id, turn, "q-1"))
    data = events.question_answered("q-1", "yes")
    told = NewEvent(EventType.QUESTION_ANSWERED, data, turn_id=turn.turn_id, attempt=1, text_offset=9)
    told = await owner.store.append_event(owner.lease, told)
    error = events.agent_error(refused.message_id, [refused.message_id], "GUARDRAIL_REJECTED", "no", None, 1)
    ends = (TurnEnd(refused.turn_id, EventType.AGENT_ERROR, error),)
    finish = FinishRun(None, RunStatus.FAILED, TurnStatus.FAILED, ends, attempt=1, text_offset=12)
    [said] = await owner.store.finish_run(owner.lease, finish)
    assert [asked.seq, told.seq, said.seq] == [ended.seq + 1, ended.seq + 2, ended.seq + 3]
    heir, _ = await successor(owner, helpers)
    assert (await heir.store.adopt_run(heir.lease, run_id)).start_seq == ended.seq


async def test_the_first_text_of_a_conversation_began_behind_nothing(owner, helpers):
    run_id = await owner.start(await owner.accept())
    heir, _ = await successor(owner, helpers)
    assert (await heir.store.adopt_run(heir.lease, run_id)).start_seq == 0


async def test_a_second_attempts_text_began_behind_its_restart(owner, helpers):
    turn = await owner.accept()
    first = await owner.start(turn)
    await owner.store.ask_question(owner.lease, question(first, turn, "q-1"))
    [turn] = await owner.store.requeue_run(owner.lease, RequeueRun(first, (turn.turn_id,), failed=True))
    restarts = (events.restart(turn.message_id, 2, "retry"),)
    start = StartRun("second", (turn.turn_id,), 2, 1, 2.5, restarts)
    [restart] = await owner.store.start_run(owner.lease, start)
    asked = await owner.store.ask_question(owner.lease, replace(question("second", turn, "q-2"), attempt=2))
    heir, _ = await successor(owner, helpers)
    adopted = await heir.store.adopt_run(heir.lease, "second")
    assert (restart.type, adopted.start_seq, asked.seq) == (EventType.RESTART, restart.seq, restart.seq + 1)
    assert [q.question_id for q in adopted.questions] == ["q-2"], "the first attempt's are withdrawn"


async def test_its_questions_come_in_the_order_of_asking(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    for name in ("q-b", "q-a", "q-c"):
        assert await owner.store.ask_question(owner.lease, question(run_id, turn, name)) is not None
    for name in ("q-a", "q-c"):
        await owner.store.answer_question(owner.ref, name, answer=f"yes {name}", answered_by="ann")
    data = events.question_answered("q-c", "yes q-c")
    told = NewEvent(EventType.QUESTION_ANSWERED, data, turn_id=turn.turn_id, attempt=1, text_offset=9)
    assert await owner.store.append_event(owner.lease, told) is not None
    heir, _ = await successor(owner, helpers)
    adopted = await heir.store.adopt_run(heir.lease, run_id)
    assert adopted.questions == (
        AskedQuestion("q-b", "of-q-b", None, told=False),
        AskedQuestion("q-a", "of-q-a", "yes q-a", told=False),
        AskedQuestion("q-c", "of-q-c", "yes q-c", told=True),
    )

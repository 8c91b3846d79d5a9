"""Messages that join a live run, and questions to a person: the same on both stores."""

from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.store.question_records import AnswerOutcome, NewQuestion
from lobu_actors.store.records import Accepted, Refused


def question(run_id, turn, question_id="q-1"):
    data = events.question(question_id, "Sure?", ["yes", "no"], turn.message_id)
    return NewQuestion(question_id, f"of-{question_id}", run_id, turn.turn_id, "Sure?", ("yes", "no"), data, 1, 7)


async def answer(owner, text, by="u1", question_id="q-1"):
    return await owner.store.answer_question(owner.ref, question_id, answer=text, answered_by=by)


async def test_a_joined_turn_ends_with_its_run(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert await owner.store.join_run(owner.lease, run_id, second.turn_id) is True
    assert await owner.store.join_run(owner.lease, run_id, second.turn_id) is True, "asked again, the same answer"
    owed = await owner.store.load_owed(owner.lease, limit=10)
    assert [turn.status for turn in owed] == [TurnStatus.RUNNING, TurnStatus.RUNNING]
    written = await owner.store.finish_run(owner.lease, helpers.finish(run_id, first, second))
    assert [event.turn_id for event in written] == [first.turn_id, second.turn_id]
    assert await owner.store.load_owed(owner.lease, limit=10) == []


async def test_only_a_queued_turn_joins_and_only_a_live_run(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    assert await owner.store.join_run(owner.lease, "no-such-run", second.turn_id) is False
    run_id = await owner.start(first)
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, first)) is not None
    assert await owner.store.join_run(owner.lease, run_id, second.turn_id) is False, "the run is over"
    other = await owner.start(second)
    assert await owner.store.join_run(owner.lease, other, first.turn_id) is False, "the turn is over"


async def test_a_lost_lease_joins_and_asks_nothing(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    await owner.store.declare_host_dead("h1")
    assert await owner.store.activate(owner.ref, await helpers.alive(owner.store, "h2")) is not None
    assert await owner.store.join_run(owner.lease, run_id, second.turn_id) is None
    assert await owner.store.ask_question(owner.lease, question(run_id, first)) is None
    assert await answer(owner, "yes") is AnswerOutcome.NOT_FOUND


async def test_the_first_answer_wins(owner):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    asked = await owner.store.ask_question(owner.lease, question(run_id, turn))
    assert (asked.type, asked.attempt, asked.text_offset) == (EventType.QUESTION, 1, 7)
    assert await owner.store.ask_question(owner.lease, question(run_id, turn)) == asked, "asked again, the same event"
    assert await owner.store.find_answers(owner.ref, ["q-1"]) == {}
    assert await answer(owner, "yes") is AnswerOutcome.ACCEPTED
    assert await answer(owner, "no") is AnswerOutcome.ALREADY_ANSWERED
    assert await answer(owner, "yes", by="u2") is AnswerOutcome.ALREADY_ANSWERED
    assert await answer(owner, "yes") is AnswerOutcome.ACCEPTED, "the same again, after a lost answer"
    assert await owner.store.find_answers(owner.ref, ["q-1", "q-2"]) == {"q-1": "yes"}
    assert [event.type for event in await owner.store.read_events(owner.ref, 1, limit=10)] == [EventType.QUESTION]


async def test_an_answer_is_known_again_by_its_clients_name_for_it(owner):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.ask_question(owner.lease, question(run_id, turn)) is not None
    assert await owner.store.find_answered_question(owner.ref, "m-2") is None
    given = {"answer": "yes", "answered_by": "u1", "answer_id": "m-2"}
    assert await owner.store.answer_question(owner.ref, "q-1", **given) is AnswerOutcome.ACCEPTED
    assert await owner.store.answer_question(owner.ref, "q-1", **given | {"answer_id": "m-3"}) is AnswerOutcome.ACCEPTED
    assert await owner.store.find_answered_question(owner.ref, "m-2") == "q-1"
    assert await owner.store.find_answered_question(owner.ref, "m-3") is None, "it was taken before"


async def test_the_end_of_the_turn_withdraws_its_question(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.ask_question(owner.lease, question(run_id, turn)) is not None
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    assert await answer(owner, "yes") is AnswerOutcome.WITHDRAWN
    assert await owner.store.find_answers(owner.ref, ["q-1"]) == {}


async def test_a_run_that_is_over_asks_nothing(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    assert await owner.store.ask_question(owner.lease, question(run_id, turn)) is None


async def test_a_message_may_ask_to_be_rejected_when_busy(owner, helpers):
    reject = replace(helpers.new_turn(owner.ref, "m-1"), on_busy=OnBusy.REJECT)
    assert isinstance(await owner.store.accept_turn(reject, max_owed=10), Accepted)
    again = replace(helpers.new_turn(owner.ref, "m-2"), on_busy=OnBusy.REJECT)
    assert await owner.store.accept_turn(again, max_owed=10) == Refused("busy")
    assert await owner.store.find_turn(owner.ref, "m-2") is None
    assert isinstance(await owner.store.accept_turn(reject, max_owed=10), Accepted), "a known message is no new one"

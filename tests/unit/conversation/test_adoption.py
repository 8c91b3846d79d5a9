"""What `decide` makes of a run that an earlier supervisor began; the orders of events are in the property test."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import CANCELLED, RUN_UNKNOWN, TEXT_OFFSET, Complete, Delta, Fail, Heartbeat, Reattach
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.adoption_messages import AdoptRun, RunAdopted
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.state import Limits, Moment, RunPhase, State, WorkerPhase, WorkerState
from lobu_actors.conversation.worker_port import WorkerFrames
from lobu_actors.store.question_records import AskedQuestion
from lobu_actors.store.records import FILES_KEY, RunRecord, Turn

REF = ConversationRef("org", "echo", "echo_u_org")
AT = datetime(2026, 1, 1, tzinfo=UTC)
TURN = Turn(REF, "t1", "m1", "hi", OnBusy.ENQUEUE, {}, TurnStatus.RUNNING, 1, 0, 0, 0, AT)
RECORD = RunRecord("r1", ("t1",), RunStatus.LIVE, "h", 1, 1, 7, 2.5)
WORKER = WorkerState("w1", WorkerPhase.READY, frozenset({"cancel", "ask", "reattach", TEXT_OFFSET}), 7, 2.5)
PLAIN = replace(WORKER, capabilities=WORKER.capabilities - {TEXT_OFFSET})
NEW = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True)


def step(state, message, now=100.0):
    return decide(state, message, Moment(now, "fresh"))


def say(state, *frames, now=100.0):
    return step(state, WorkerFrames("w1", frames), now)


def adopted(worker=WORKER, turn=TURN, questions=(), age=10.0, provider_code=None):
    state, effects = step(NEW, m.Recovered((turn,), RECORD, worker))
    assert effects == [AdoptRun("r1", "m1", 1)]
    return step(state, RunAdopted("r1", age, tuple(questions), provider_code))


def kinds(effects):
    return [type(effect) for effect in effects]


def test_the_worker_is_asked_for_all_of_it():
    state, effects = adopted()
    assert [effect.frame for effect in effects if isinstance(effect, m.SendFrame)] == [
        Reattach(run_id="r1", text_offset=0)
    ]
    assert state.run.phase is RunPhase.LIVE
    assert state.run.started_at == 90.0, "it goes on since it began"


def test_nothing_counts_before_its_text_comes_again():
    state, _ = adopted()
    state, effects = say(state, Delta(run_id="r1", text="stale"), Complete(run_id="r1", text="stale"))
    assert set(kinds(effects)) == {m.Dropped}
    state, effects = say(state, Delta(run_id="r1", text="all of it", text_offset=0))
    assert effects == [m.ShowText("all of it")]
    _, effects = say(state, Delta(run_id="r1", text="all of it again", text_offset=0), Complete(run_id="r1"))
    assert effects[0] == m.ShowText(" again")
    assert isinstance(effects[1], m.FinishTurns)


def test_a_provider_that_had_failed_is_still_what_the_client_is_told():
    """Text that comes again is none that came since."""
    state, _ = adopted(provider_code="PROVIDER_QUOTA")
    state, _ = say(state, Delta(run_id="r1", text="all of it", text_offset=0))
    late = 100.0 + state.deadlines.progress_seconds + 1
    state, _ = say(state, Heartbeat(), now=late)
    _, effects = step(state, m.Tick(), late)
    assert [effect.code for effect in effects if isinstance(effect, m.FinishTurns)] == ["PROVIDER_QUOTA"]
    state, _ = say(state, Delta(run_id="r1", text=" and more"))
    assert state.run.provider_code is None


@pytest.mark.parametrize(
    ("worker", "record", "owed"),
    [
        (replace(WORKER, capabilities=frozenset({"cancel", TEXT_OFFSET})), RECORD, (TURN,)),
        (WORKER, replace(RECORD, turn_ids=("t1", "t2")), (TURN,)),
        (WORKER, RECORD, (replace(TURN, status=TurnStatus.QUEUED),)),
    ],
)
def test_what_cannot_go_on_ends_its_worker_first(worker, record, owed):
    state, effects = step(NEW, m.Recovered(owed, record, worker))
    assert effects[0] == m.KillWorker()
    assert AdoptRun not in kinds(effects)
    assert state.worker.phase is WorkerPhase.ENDING


def test_a_turn_that_never_reached_its_worker_is_sent_and_asked_for():
    state, _ = adopted()
    state, effects = say(state, Fail(run_id="r1", code=RUN_UNKNOWN))
    assert effects == [m.SendTurn("r1", (TURN,), 1), m.SendFrame(Reattach(run_id="r1", text_offset=0))]
    # The answer to a `reattach` of yet another supervisor: once more does no harm, while it is no end of the turn.
    state, effects = say(state, Fail(run_id="r1", code=RUN_UNKNOWN))
    assert effects == [m.SendTurn("r1", (TURN,), 1), m.SendFrame(Reattach(run_id="r1", text_offset=0))]
    state, effects = say(state, Delta(run_id="r1", text="stale"), Delta(run_id="r1", text="hello", text_offset=0))
    assert effects == [m.Dropped("before reattach"), m.ShowText("hello")]


@pytest.mark.parametrize(("worker", "turn"), [(PLAIN, TURN), (WORKER, replace(TURN, payload={FILES_KEY: ["f"]}))])
def test_a_turn_that_cannot_be_sent_again_goes_back_with_no_failure(worker, turn):
    state, _ = adopted(worker, turn)
    state, effects = say(state, Fail(run_id="r1", code=RUN_UNKNOWN))
    assert effects == [m.KillWorker(), m.RequeueTurns("r1", (turn,), failed=False, code="NOT_SENT")]
    assert state.worker.phase is WorkerPhase.ENDING


def test_a_worker_that_was_cancelled_before_ends_as_cancelled():
    state, _ = adopted()
    _, effects = say(state, Delta(run_id="r1", text="", text_offset=0), Fail(run_id="r1", code=CANCELLED))
    assert effects[-1].status is TurnStatus.CANCELLED


def test_a_cancel_does_not_wait_for_the_text():
    state, _ = adopted()
    state, _ = step(state, m.CancelRequest(None))
    _, effects = say(state, Fail(run_id="r1", code=CANCELLED))
    assert effects[-1].status is TurnStatus.CANCELLED


def test_a_worker_that_does_not_answer_is_given_up():
    state, _ = adopted()
    late = 100.0 + Deadlines().startup_seconds
    state, effects = say(state, Heartbeat(), now=late - 1)
    assert effects == []
    _, effects = step(state, m.Tick(), now=late)
    [end] = [effect for effect in effects if isinstance(effect, m.FinishTurns)]
    assert end.code == TurnError.WORKER_UNRESPONSIVE


def test_an_answer_that_was_not_handed_on_is_looked_for_at_once():
    state, _ = adopted(questions=[AskedQuestion("r1-0", "q", "yes", told=False)])
    _, effects = step(state, m.Tick())
    assert [effect.question_ids for effect in effects] == [("r1-0",)]

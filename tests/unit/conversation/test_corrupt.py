"""A debt that cannot be read ends alone, with its own code, whatever else is owed, and is told to the operator once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.adoption_messages import AdoptRun
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.marker_messages import MarkersMended, MendMarkers
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.state import Limits, Moment, State, WorkerPhase, WorkerState
from lobu_actors.conversation.worker_port import WorkerReady
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import RunRecord, Turn, Verdict

REF = ConversationRef("org", "echo", "echo_u_org")
SENTENCE = "The record of this turn could not be read; send the message again."
STATE = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True)
END_RUNS = m.RequeueTurns(None, (), failed=False, code="MARKER_CORRUPT")


def turn(number: int, status: TurnStatus = TurnStatus.QUEUED) -> Turn:
    at = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
    return Turn(REF, f"t{number}", f"m{number}", "hi", OnBusy.ENQUEUE, {}, status, 1, 0, 0, 0, at)


def unreadable(number: int) -> CorruptMarker:
    return CorruptMarker(REF, f"t{number}", f"m{number}", "payload is not an object", contradicts=False)


def lost(number: int) -> CorruptMarker:
    return CorruptMarker(REF, f"t{number}", f"t{number}", "there is no such turn", contradicts=True)


def note(marker: CorruptMarker) -> m.Note:
    return m.Note("marker corrupt", {"turn_id": marker.turn_id, "reason": marker.reason}, alarm=True)


def end(marker: CorruptMarker) -> m.FinishTurns:
    return m.FinishTurns(None, (marker,), TurnStatus.FAILED, RunStatus.FAILED, code="MARKER_CORRUPT", error=SENTENCE)


def tell(state: State, *messages: m.Message) -> tuple[State, list[m.Effect]]:
    effects: list[m.Effect] = []
    for message in messages:
        state, more = decide(state, message, Moment(1000.0, "r1"))
        effects += more
    return state, effects


def test_each_ends_alone_and_the_others_go_on() -> None:
    first, second, third = unreadable(1), turn(2), unreadable(3)
    state, effects = tell(STATE, m.Recovered((first, second, third)))
    assert effects == [note(first), end(first), note(third), end(third), END_RUNS, m.StartWorker()]
    assert state.queue == (second,)


def test_what_contradicts_other_rows_is_mended_first_and_then_refused_as_any_other() -> None:
    first, second, sound = lost(1), lost(2), turn(3)
    state, effects = tell(STATE, m.Recovered((first, second, sound)))
    assert effects == [note(first), note(second), MendMarkers(("t1", "t2")), END_RUNS, m.StartWorker()]
    back = replace(turn(1), verdict=Verdict("MARKER_CORRUPT", SENTENCE))
    state, effects = tell(state, MarkersMended((back, second, sound)), m.TurnsRequeued(()))
    [ended] = effects
    assert isinstance(ended, m.FinishTurns)
    assert (ended.turns, ended.code, ended.error) == ((back,), "MARKER_CORRUPT", SENTENCE)
    # What could not be mended is not tried again and again; the next look at the queue does.
    assert state.queue == (sound,)


@pytest.mark.parametrize("rule", ["retry", "fail"])
def test_a_lost_run_of_others_is_judged_as_ever(rule: str) -> None:
    state = replace(STATE, failure=FailurePolicy(host_lost=rule))
    running = turn(2, TurnStatus.RUNNING)
    _, effects = tell(state, m.Recovered((unreadable(1), running)))
    assert effects[:2] == [note(unreadable(1)), end(unreadable(1))]
    [judged] = effects[2:]
    assert isinstance(judged, m.RequeueTurns if rule == "retry" else m.FinishTurns)
    assert judged.turns == (running,)


@pytest.mark.parametrize("in_the_run", [True, False])
def test_a_run_that_its_worker_still_has_goes_on_unless_it_is_the_corrupt_ones(in_the_run: bool) -> None:
    running, corrupt = turn(2, TurnStatus.RUNNING), unreadable(1)
    turn_ids = ("t1", "t2") if in_the_run else ("t2",)
    record = RunRecord("r1", turn_ids, RunStatus.LIVE, "h0", 1, 1)
    worker = WorkerState("w1", WorkerPhase.READY, frozenset({"reattach"}))
    _, effects = tell(STATE, m.Recovered((corrupt, running), record, worker))
    assert effects[:2] == [note(corrupt), end(corrupt)]
    retried = m.RequeueTurns(None, (running,), failed=True, code="HOST_LOST")
    assert effects[2:] == ([m.KillWorker(), retried] if in_the_run else [AdoptRun("r1", "m2", 1)])


def test_a_worker_whose_whole_run_is_corrupt_is_ended_with_it() -> None:
    record = RunRecord("r1", ("t1",), RunStatus.LIVE, "h0", 1, 1)
    worker = WorkerState("w1", WorkerPhase.READY, frozenset({"reattach"}))
    _, effects = tell(STATE, m.Recovered((unreadable(1),), record, worker))
    assert effects == [note(unreadable(1)), end(unreadable(1)), m.KillWorker(), END_RUNS]


def test_found_by_a_sweep_it_disturbs_no_live_run() -> None:
    ready = WorkerReady("w1", 7, 1.0, frozenset())
    state, _ = tell(STATE, m.TurnAccepted(turn(1)), m.WorkerStarting("w1"), ready, m.RunBegun("r1"))
    after, effects = tell(state, m.OwedLoaded((turn(1, TurnStatus.RUNNING), unreadable(2), lost(3))))
    assert effects == [note(unreadable(2)), end(unreadable(2)), note(lost(3)), MendMarkers(("t3",))]
    assert after == state


@pytest.mark.parametrize("marker", [unreadable(1), lost(1)])
def test_what_is_in_hand_ends_as_it_would_have(marker: CorruptMarker) -> None:
    ready = WorkerReady("w1", 7, 1.0, frozenset())
    state, _ = tell(STATE, m.TurnAccepted(turn(1)), m.WorkerStarting("w1"), ready, m.RunBegun("r1"))
    assert tell(state, m.OwedLoaded((marker,))) == (state, [])
    state, _ = tell(STATE, m.TurnAccepted(turn(1)))
    assert tell(state, m.OwedLoaded((marker,))) == (state, [])


@pytest.mark.parametrize("given_back", [(), (unreadable(1),)])
def test_a_run_whose_turn_rotted_meanwhile_does_not_hold_the_conversation(given_back: tuple[CorruptMarker]) -> None:
    ready = WorkerReady("w1", 7, 1.0, frozenset())
    state, _ = tell(STATE, m.TurnAccepted(turn(1)), m.WorkerStarting("w1"), ready, m.RunBegun("r1"))
    state, effects = tell(state, m.TurnNotSent("r1"), m.TurnsRequeued(given_back), m.TurnAccepted(turn(2)))
    assert state.run is None
    assert state.queue == (turn(2),)
    assert [effect for effect in effects if isinstance(effect, m.FinishTurns)] == [end(one) for one in given_back]

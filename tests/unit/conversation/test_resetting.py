"""A reset in `decide`: what ends before it, what stays, and that no worker ever sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import Cancel
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.session_file import SessionMessage
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.drain_messages import ReleaseLease
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.resetting import MAX_SUMMARY_CHARS, summary_of
from lobu_actors.conversation.session_messages import (
    PurgeRequest,
    PurgeSnapshots,
    ResetFailed,
    ResetRefused,
    ResetSession,
    SessionReset,
    SnapshotsPurged,
)
from lobu_actors.conversation.state import Limits, Moment, RunPhase, State
from lobu_actors.conversation.worker_port import Gone, WorkerGone, WorkerReady
from lobu_actors.store.records import Turn

REF = ConversationRef("org", "echo", "echo_u_org")
NOW = 1000.0
GONE = WorkerGone("w1", Gone.EXITED, "killed", None, 9)


def turn(number: int, content: str = "hi", on_busy: OnBusy = OnBusy.ENQUEUE) -> Turn:
    at = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
    return Turn(REF, f"t{number}", f"m{number}", content, on_busy, {}, TurnStatus.QUEUED, 1, 0, 0, 0, at)


def new(number: int, on_busy: OnBusy = OnBusy.INTERRUPT) -> Turn:
    return turn(number, " /new\n", on_busy)


def tell(state: State, *told: m.Message, now: float = NOW) -> tuple[State, list[m.Effect]]:
    effects: list[m.Effect] = []
    for message in told:
        state, more = decide(state, message, Moment(now, "r1"))
        effects += more
    return state, effects


def fresh(**changes: object) -> State:
    return replace(State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True), **changes)


def running() -> State:
    ready = WorkerReady("w1", 7, 1.0, frozenset({"cancel", "steer"}))
    state, _ = tell(fresh(), m.TurnAccepted(turn(1)), m.WorkerStarting("w1"), ready, m.RunBegun("r1"))
    assert state.run is not None
    assert state.run.phase is RunPhase.LIVE
    return state


def idle() -> State:
    state = running()
    return tell(state, m.TurnsFinished(("t1",)))[0]


def done(reset: Turn) -> list[m.Effect]:
    return [
        m.ShowEphemeral("Starting fresh", reset.message_id),
        m.FinishTurns(None, (reset,), TurnStatus.COMPLETED, RunStatus.COMPLETED, text="Starting fresh"),
    ]


def test_without_a_worker_it_happens_at_once_and_ends_its_turn() -> None:
    state, effects = tell(fresh(), m.TurnAccepted(new(1)))
    assert effects == [ResetSession(new(1))]
    state, effects = tell(state, SessionReset(new(1)))
    assert effects == done(new(1))
    state, effects = tell(state, m.TurnsFinished(("t1",)))
    assert effects == []
    assert (state.queue, state.resetting, state.run) == ((), None, None)


def test_a_worker_that_waits_is_killed_first_and_its_end_is_awaited() -> None:
    state, effects = tell(idle(), m.TurnAccepted(new(2)))
    assert effects == [m.KillWorker()]
    assert next_deadline(state) is None  # nothing to do before its end: no clock may spin
    state, effects = tell(state, m.Tick(), m.Sweep(), m.OwedLoaded((new(2),)))
    assert effects == [m.LoadOwed()]
    state, effects = tell(state, GONE)
    assert effects[-1] == ResetSession(new(2))
    assert state.crashes == ()


def test_it_cancels_the_live_run_and_goes_before_the_queue_which_stays() -> None:
    state, _ = tell(running(), m.TurnAccepted(turn(2)))
    state, effects = tell(state, m.TurnAccepted(new(3)))
    assert [type(effect.frame) for effect in effects if isinstance(effect, m.SendFrame)] == [Cancel]
    assert [queued.turn_id for queued in state.queue] == ["t3", "t2"]
    state, effects = tell(state, GONE)
    finish = next(effect for effect in effects if isinstance(effect, m.FinishTurns))
    assert (finish.turns[0].turn_id, finish.status) == ("t1", TurnStatus.CANCELLED)
    state, effects = tell(state, m.TurnsFinished(("t1",)))
    assert effects == [ResetSession(new(3))]
    state, effects = tell(state, SessionReset(new(3)))
    assert effects == [*done(new(3)), m.StartWorker()]
    assert [queued.turn_id for queued in state.queue] == ["t2"]


def test_in_line_it_waits_its_turn() -> None:
    state, effects = tell(running(), m.TurnAccepted(new(2, OnBusy.ENQUEUE)))
    assert effects == []
    state, effects = tell(state, m.TurnsFinished(("t1",)))
    assert effects == [m.KillWorker()]


@pytest.mark.parametrize("on_busy", [OnBusy.STEER, OnBusy.MERGE])
def test_it_neither_steers_nor_merges(on_busy: OnBusy) -> None:
    state, effects = tell(running(), m.TurnAccepted(new(2, on_busy)))
    assert effects == []
    ready = WorkerReady("w2", 8, 2.0, frozenset())
    state, _ = tell(fresh(), m.TurnAccepted(turn(1)), m.TurnAccepted(new(2, on_busy)), m.WorkerStarting("w2"))
    state, effects = tell(state, ready)
    assert [begin.turns for begin in effects if isinstance(begin, m.BeginRun)] == [(turn(1),)]


def test_it_works_where_no_run_would_begin() -> None:
    """A conversation that is broken is what it is for."""
    broken = fresh(has_agent=False, crashes=(NOW,) * 20, not_before=NOW + 60)
    assert tell(broken, m.TurnAccepted(new(1)))[1] == [ResetSession(new(1))]


def test_a_draining_host_leaves_it_to_the_next() -> None:
    assert tell(fresh(draining=True), m.TurnAccepted(new(1)))[1] == [ReleaseLease(owes=True)]


def test_a_closing_conversation_cancels_it() -> None:
    _state, effects = tell(idle(), m.TurnAccepted(new(2)), m.CloseRequest(), GONE)
    assert [effect.status for effect in effects if isinstance(effect, m.FinishTurns)] == [TurnStatus.CANCELLED]


def test_it_can_be_cancelled_while_its_worker_ends() -> None:
    _state, effects = tell(idle(), m.TurnAccepted(new(2)), m.CancelRequest("m2"), m.TurnsFinished(("t2",)), GONE)
    assert not [effect for effect in effects if isinstance(effect, ResetSession)]


def test_what_interrupts_behind_it_waits_for_it() -> None:
    """Two at once, the first of which carries what the second knows nothing of; and a message for the new session."""
    first, second, message = new(2), new(3), turn(4, on_busy=OnBusy.INTERRUPT)
    state, _ = tell(idle(), m.TurnAccepted(first))
    assert tell(state, m.TurnAccepted(second), m.TurnAccepted(message))[1] == []
    state, effects = tell(state, m.TurnAccepted(second), m.TurnAccepted(message), GONE)
    assert ResetSession(first) in effects
    assert state.queue == (first, second, message)


def test_the_result_of_another_effect_does_not_begin_it_twice() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(new(1)))
    assert tell(state, m.TurnsFinished(("t0",)))[1] == []


def test_a_late_hint_touches_nothing() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(new(1)))
    state, effects = tell(state, ResetRefused(new(1)))
    assert [type(effect) for effect in effects] == [m.Dropped, m.Note]
    assert state.queue == ()


def test_what_cannot_be_removed_fails_the_turn() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(new(1)))
    _, effects = tell(state, ResetFailed(new(1), "disk"))
    [finish] = effects
    assert isinstance(finish, m.FinishTurns)
    assert (finish.status, finish.code) == (TurnStatus.FAILED, TurnError.SESSION_FILE_INVALID)


def test_snapshots_are_purged_for_the_live_run_only() -> None:
    state, effects = tell(running(), PurgeRequest("r1"))
    assert effects == [PurgeSnapshots()]
    assert tell(state, SnapshotsPurged(3))[1] == [m.Reply(3)]
    assert tell(state, PurgeRequest("r0"))[1] == [m.Reply(None)]
    assert tell(idle(), PurgeRequest("r1"))[1] == [m.Reply(None)]


def test_an_unguarded_run_goes_back_to_the_queue_later() -> None:
    state, effects = tell(running(), m.RunRefused("r1", "no conversation"))
    requeue = effects[-1]
    assert requeue == m.RequeueTurns("r1", (turn(1),), failed=False, code="RUN_UNGUARDED")
    state, effects = tell(state, m.TurnsRequeued((turn(1),)))
    assert effects == []
    assert next_deadline(state) == state.not_before > NOW


def test_a_summary_keeps_the_newest_within_its_bound() -> None:
    said = tuple(SessionMessage(number, str(number), "user", f"{number} " + "x" * 5000) for number in range(40))
    summary = summary_of(
        (*said, SessionMessage(99, "e", "assistant", "  "), SessionMessage(100, "z", "assistant", "end"))
    )
    assert summary is not None
    assert len(summary) <= MAX_SUMMARY_CHARS
    assert summary.endswith("assistant: end")
    assert "user: 39 " in summary
    assert "user: 0 " not in summary
    assert summary_of(()) is None

"""What a message asks for when something runs: each wish of `onBusy`."""

from __future__ import annotations

from lobu_actors.contract.frames import Complete, Steer
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.state import RunPhase
from tests.unit.conversation.test_decide import frames, fresh, only, ready, running, tell, turn


def busy(number: int, on_busy: OnBusy) -> m.TurnAccepted:
    return m.TurnAccepted(turn(number, on_busy=on_busy))


def test_merged_messages_share_a_run_and_each_is_processed() -> None:
    state, effects = tell(running(), busy(2, OnBusy.ENQUEUE), busy(3, OnBusy.MERGE), busy(4, OnBusy.ENQUEUE))
    assert effects == []
    state, effects = tell(state, frames(Complete(run_id="r1")), m.TurnsFinished(("t1",)))
    [begin] = only(effects, m.BeginRun)
    assert isinstance(begin, m.BeginRun)
    assert [joined.turn_id for joined in begin.turns] == ["t2", "t3"]
    assert [waiting.turn_id for waiting in state.queue] == ["t4"]


def test_a_steering_message_joins_the_run_once_that_is_committed() -> None:
    state, _ = tell(
        fresh(), m.TurnAccepted(turn()), m.WorkerStarting("w1"), ready(frozenset({"steer"})), m.RunBegun("r1")
    )
    steering = turn(2, on_busy=OnBusy.STEER)
    state, effects = tell(state, m.TurnAccepted(steering))
    assert effects == [m.JoinRun("r1", steering)]
    assert tell(state, m.TurnAccepted(steering))[1] == [], "a second hint meanwhile changes nothing"
    state, effects = tell(state, m.RunJoined(steering))
    assert effects == [m.SendFrame(Steer(run_id="r1", message_id="m2", content="hi"))]
    _, effects = tell(state, frames(Complete(run_id="r1")))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert [ended.turn_id for ended in finish.turns] == ["t1", "t2"]


def test_a_steering_message_that_nobody_read_is_a_message_of_its_own() -> None:
    first, steering, late = turn(), turn(2, on_busy=OnBusy.STEER), turn(3, on_busy=OnBusy.STEER)
    begun = tell(
        fresh(), m.TurnAccepted(first), m.WorkerStarting("w1"), ready(frozenset({"steer"})), m.RunBegun("r1"),
        m.TurnAccepted(steering), m.RunJoined(steering), m.TurnAccepted(late), m.RunJoined(late),
    )[0]  # fmt: skip
    state, effects = tell(begun, frames(Complete(run_id="r1", processed_message_ids=["m1", "m2"])))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert ([ended.turn_id for ended in finish.turns], [back.turn_id for back in finish.returned]) == (
        ["t1", "t2"],
        ["t3"],
    )
    assert finish.returned[0].attempt == 2
    state, effects = tell(state, m.TurnsFinished(("t1", "t2"), finish.returned))
    [begin] = only(effects, m.BeginRun)
    assert isinstance(begin, m.BeginRun)
    assert ([again.turn_id for again in begin.turns], begin.attempt) == (["t3"], 2)

    for said in (None, ["m1", "m2", "m3"]):
        [finish] = only(tell(begun, frames(Complete(run_id="r1", processed_message_ids=said)))[1], m.FinishTurns)
        assert isinstance(finish, m.FinishTurns)
        assert not finish.returned, "who says nothing has read all"
    [finish] = only(tell(begun, frames(Complete(run_id="r1", processed_message_ids=[])))[1], m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert [ended.turn_id for ended in finish.turns] == ["t1"], "the first one counts in any case"


def test_a_worker_that_cannot_be_steered_gets_the_message_next() -> None:
    state, effects = tell(running(), busy(2, OnBusy.STEER))
    assert effects == []
    assert [waiting.turn_id for waiting in state.queue] == ["t2"]


def test_an_interrupt_cancels_what_runs_and_goes_first() -> None:
    state, effects = tell(running(), busy(2, OnBusy.ENQUEUE), busy(3, OnBusy.INTERRUPT))
    cancel, request = effects
    assert isinstance(cancel, m.SendFrame)
    assert request == m.RequestCancel("r1")
    assert [waiting.turn_id for waiting in state.queue] == ["t3", "t2"]


def test_an_interrupt_cancels_what_is_about_to_run_and_nothing_behind_it() -> None:
    """The first one's worker still starts; the second wants to run with it, the third waits by itself."""
    state, _ = tell(fresh(), m.TurnAccepted(turn()), m.WorkerStarting("w1"))
    state, _ = tell(state, busy(2, OnBusy.MERGE), busy(3, OnBusy.ENQUEUE))
    state, effects = tell(state, busy(4, OnBusy.INTERRUPT))
    [finish] = effects
    assert isinstance(finish, m.FinishTurns)
    assert ([ended.turn_id for ended in finish.turns], finish.status) == (["t1", "t2"], TurnStatus.CANCELLED)
    assert [waiting.turn_id for waiting in state.queue] == ["t4", "t3"]


def test_an_interrupt_cancels_what_waits_for_its_next_attempt() -> None:
    retried = turn(attempt=2)
    state, _ = tell(running(), m.TurnNotSent("r1"), m.TurnsRequeued((retried,)))
    state, effects = tell(state, busy(2, OnBusy.INTERRUPT))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.turns == (retried,)
    assert [waiting.turn_id for waiting in state.queue] == ["t2"]


def test_an_interrupt_that_came_first_is_not_overtaken_by_its_late_hint() -> None:
    state, _ = tell(fresh(), busy(2, OnBusy.ENQUEUE))
    state, effects = tell(state, busy(1, OnBusy.INTERRUPT))
    assert only(effects, m.FinishTurns) == []
    assert [waiting.turn_id for waiting in state.queue] == ["t1", "t2"]


def test_an_interrupt_that_nobody_was_told_of_interrupts_when_it_is_found() -> None:
    """Its hint was lost, or a sweep was faster."""
    found = m.OwedLoaded((turn(status=TurnStatus.RUNNING), turn(2, on_busy=OnBusy.INTERRUPT)))
    state, effects = tell(running(), found)
    assert only(effects, m.RequestCancel) == [m.RequestCancel("r1")]
    assert [waiting.turn_id for waiting in state.queue] == ["t2"]
    assert tell(state, found, m.TurnAccepted(turn(2, on_busy=OnBusy.INTERRUPT)))[1] == [], "once"


def test_what_a_lost_host_ran_is_interrupted_by_who_came_meanwhile() -> None:
    lost = turn(status=TurnStatus.RUNNING)
    state, effects = tell(fresh(), m.Recovered((lost, turn(2), turn(3, on_busy=OnBusy.INTERRUPT))))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.turns, finish.status) == ((lost,), TurnStatus.CANCELLED)
    assert [waiting.turn_id for waiting in state.queue] == ["t3", "t2"]


def test_what_ran_already_goes_on_before_any_other_begins() -> None:
    """An id of a piece of text names the place in the log, the attempt and the offset: no first attempt of another turn
    may begin at the place at which this one's first attempt spoke."""
    again = turn(3, attempt=2, failures=1, error_code="HOST_LOST")
    state, _ = tell(fresh(), m.Recovered((turn(1, on_busy=OnBusy.INTERRUPT), turn(2), again)))
    assert [waiting.turn_id for waiting in state.queue] == ["t3", "t1", "t2"]


def test_an_interrupt_whose_hint_comes_late_cancels_nothing_that_came_behind_it() -> None:
    """Two edges have accepted one each, and the second's hint was the quicker one."""
    state, _ = tell(fresh(), m.TurnAccepted(turn(2)), m.WorkerStarting("w1"), ready(), m.RunBegun("r1"))
    state, effects = tell(state, busy(1, OnBusy.INTERRUPT))
    assert effects == []
    assert state.run is not None
    assert state.run.phase is RunPhase.LIVE
    assert [waiting.turn_id for waiting in state.queue] == ["t1"]


def test_an_interrupt_ends_what_runs_also_behind_a_clock_that_was_set_back() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn(2)), m.WorkerStarting("w1"), ready(), m.RunBegun("r1"))
    _, effects = tell(state, m.TurnAccepted(turn(1, on_busy=OnBusy.INTERRUPT, position=1)))
    assert m.RequestCancel("r1") in effects
    state, _ = tell(fresh(), m.TurnAccepted(turn(2)), m.WorkerStarting("w1"))
    _, effects = tell(state, m.TurnAccepted(turn(1, on_busy=OnBusy.INTERRUPT, first_seq=1)))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.status is TurnStatus.CANCELLED

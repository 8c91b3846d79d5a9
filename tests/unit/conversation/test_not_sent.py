"""A worker that is gone before it gets its turn."""

from __future__ import annotations

import pytest

from lobu_actors.contract.states import TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.policy import FailurePolicy
from lobu_actors.conversation.worker_port import Gone, WorkerGone
from tests.unit.conversation.test_decide import only, ready, running, tell, turn


def test_a_turn_that_the_worker_never_got_is_given_to_the_next() -> None:
    state, effects = tell(running(), m.TurnNotSent("r1"))
    assert effects == [m.KillWorker(), m.RequeueTurns("r1", (turn(),), failed=False, code="NOT_SENT")]
    state, effects = tell(state, m.TurnsRequeued((turn(attempt=2),)))
    assert effects == [], "not before the old worker is gone"
    state, effects = tell(state, WorkerGone("w1", Gone.EXITED, "", exit_code=1))
    assert only(effects, m.StartWorker) == [m.StartWorker()]


@pytest.mark.parametrize("crash", ["fail", "retry"])
def test_a_second_worker_in_a_row_that_is_gone_before_it_gets_the_turn_has_crashed(crash: str) -> None:
    state, _ = tell(running(failure=FailurePolicy(crash=crash, max_attempts=2)), m.TurnNotSent("r1"))
    again = turn(attempt=2, error_code="NOT_SENT")
    gone = WorkerGone("w1", Gone.EXITED, "")
    state, _ = tell(state, m.TurnsRequeued((again,)), gone, m.WorkerStarting("w1"), ready(), m.RunBegun("r1"))
    _, effects = tell(state, m.TurnNotSent("r1"))
    ends = [*only(effects, m.FinishTurns), *only(effects, m.RequeueTurns)]
    assert [(type(end), end.code) for end in ends] == [
        (m.FinishTurns if crash == "fail" else m.RequeueTurns, "WORKER_CRASHED")
    ]
    assert all(end.failed for end in only(effects, m.RequeueTurns))


def test_a_turn_that_was_on_its_way_to_an_idle_worker_that_left_is_given_to_the_next() -> None:
    state, effects = tell(running(), WorkerGone("w1", Gone.STALE, "Its machine leaves."))
    assert only(effects, m.RequeueTurns) == [m.RequeueTurns("r1", (turn(),), failed=False, code="NOT_SENT")]
    assert state.crashes == (), "it is nobody's fault"
    _, effects = tell(state, m.TurnsRequeued((turn(attempt=2),)))
    assert only(effects, m.StartWorker) == [m.StartWorker()]


def test_what_was_cancelled_on_its_way_to_an_idle_worker_that_left_is_cancelled() -> None:
    state, _ = tell(running(), m.CancelRequest("m1"))
    _, effects = tell(state, WorkerGone("w1", Gone.STALE, "Its machine leaves."))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.status is TurnStatus.CANCELLED

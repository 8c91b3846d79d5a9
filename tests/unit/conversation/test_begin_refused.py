"""A run that the store refuses to begin: what of it is still owed begins without what is not."""

from __future__ import annotations

from lobu_actors.contract.states import OnBusy
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.state import State
from tests.unit.conversation.test_decide import START, fresh, only, ready, tell, turn

LATE, MERGED = turn(1), turn(2, on_busy=OnBusy.MERGE)


def beginning() -> State:
    state, effects = tell(
        fresh(), m.TurnAccepted(LATE), m.TurnAccepted(MERGED), m.WorkerStarting("w1"), ready(), now=START
    )
    [begin] = only(effects, m.BeginRun)
    assert isinstance(begin, m.BeginRun)
    assert begin.turns == (LATE, MERGED)
    return state


def test_what_a_late_hint_was_merged_with_begins_without_it() -> None:
    state, effects = tell(beginning(), m.BeginRefused("r1", (MERGED,)))
    [begin] = only(effects, m.BeginRun)
    assert isinstance(begin, m.BeginRun)
    assert begin.turns == (MERGED,)
    assert only(effects, m.RequeueTurns) == []
    assert tell(state, m.TurnAccepted(LATE))[1] == [], "it is known for what it is"


def test_a_run_that_nobody_knows_of_is_ended_and_what_waits_begins_behind_it() -> None:
    state, effects = tell(beginning(), m.BeginRefused("r1", (LATE, MERGED)))
    assert only(effects, m.RequeueTurns) == [m.RequeueTurns(None, (), failed=False, code="HOST_LOST")]
    assert only(effects, m.BeginRun) == [], "not at once, so that what is wrong does not spin"
    at = next_deadline(state)
    assert at is not None
    assert at > START
    _, effects = tell(state, m.TurnsRequeued(()), m.Tick(), now=at)
    assert len(only(effects, m.BeginRun)) == 1

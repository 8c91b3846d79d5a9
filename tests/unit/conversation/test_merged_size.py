"""Messages that are merged go to the worker in one line, which has a limit."""

from __future__ import annotations

import pytest

from lobu_actors.contract.frames import MAX_LINE_BYTES, encode
from lobu_actors.contract.states import OnBusy
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.turn_frame import turn_frame
from tests.unit.conversation.test_decide import REF, fresh, only, ready, tell, turn

LARGE = 1_000_000  # bytes; a frame has 6 for each such letter of 2
MESSAGES = 30


def merging(number: int, size: int) -> m.TurnAccepted:
    where = {"content": "\u00e9" * (size // 2)} if number % 2 else {"payload": {"more": "x" * size}}
    return m.TurnAccepted(turn(number, on_busy=OnBusy.MERGE, **where))


def runs(size: int) -> list[m.BeginRun]:
    """All that follow when each completes."""
    accepted = [merging(number, size) for number in range(MESSAGES)]
    state, effects = tell(fresh(), *accepted, m.WorkerStarting("w1"), ready())
    found: list[m.BeginRun] = []
    while begun := only(effects, m.BeginRun):
        [begin] = begun
        assert isinstance(begin, m.BeginRun)
        found.append(begin)
        ids = tuple(one.turn_id for one in begin.turns)
        state, effects = tell(state, m.RunBegun("r1"), m.TurnsFinished(ids))
    return found


@pytest.mark.parametrize("size", [LARGE // 10, LARGE, 2 * LARGE])
def test_more_than_a_line_holds_is_several_runs_in_order(size: int) -> None:
    found = runs(size)
    assert [one.turn_id for begin in found for one in begin.turns] == [f"t{number}" for number in range(MESSAGES)]
    for begin in found:
        frame = turn_frame(REF, "r1", begin.turns, 1, run_token="t", summary=None, traceparent=None)
        assert len(encode(frame)) <= MAX_LINE_BYTES
    assert 1 < len(found) <= MESSAGES


def test_what_a_line_holds_is_one_run() -> None:
    assert [len(begin.turns) for begin in runs(1000)] == [MESSAGES]

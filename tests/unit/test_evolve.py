"""The quick copy is attrs' own copy."""

from __future__ import annotations

import attrs
import pytest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.state import Limits, Question, Run, RunPhase, State, WorkerPhase, WorkerState
from lobu_actors.evolve import evolve

REF = ConversationRef("o", "a", "c")
RUN = Run("r", (), 1, RunPhase.LIVE, 1.0, 2.0, 3.0, tool="grep", asked=2)
STATE = State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True, run=RUN, recent=("t",))


def test_it_is_what_attrs_makes() -> None:
    assert evolve(RUN, phase=RunPhase.FINISHING, tool=None) == attrs.evolve(RUN, phase=RunPhase.FINISHING, tool=None)
    assert evolve(STATE, run=None) == attrs.evolve(STATE, run=None)
    worker = WorkerState("w", WorkerPhase.READY)
    assert evolve(worker) == worker
    assert evolve(STATE, worker=worker).run is RUN


def test_what_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(KeyError):
        evolve(Question("q", "w"), prompt="?")  # type: ignore[call-arg]


def test_classes_that_it_is_not_for_are_refused() -> None:
    @attrs.frozen
    class Private:
        _hidden: int
        shown: int = 0

    with pytest.raises(TypeError, match=r"attrs\.evolve"):
        evolve(Private(1), shown=2)

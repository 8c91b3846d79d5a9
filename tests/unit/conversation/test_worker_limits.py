"""What a worker may say in one run: more of it ends the run, and the worker."""

from __future__ import annotations

from lobu_actors.contract.frames import Ask, Delta
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.question_messages import QuestionAnswered, RecordQuestion
from lobu_actors.conversation.state import Limits
from tests.unit.conversation.test_decide import frames, only, running, tell

ASKS = [Ask(run_id="r1", question_id=f"q{number}", prompt="?") for number in range(4)]


def test_a_reply_over_the_limit_ends_the_turn() -> None:
    _, effects = tell(running(limits=Limits(reply_max_chars=3)), frames(Delta(run_id="r1", text="four")))
    assert _failed_and_killed(effects) == "REPLY_TOO_LARGE"


def test_open_questions_over_the_limit_end_the_turn() -> None:
    state, effects = tell(running(limits=Limits(max_open_questions=2)), frames(*ASKS[:2]))
    assert len(only(effects, RecordQuestion)) == 2
    _, effects = tell(state, frames(*ASKS[2:]))
    assert only(effects, RecordQuestion) == []
    assert _failed_and_killed(effects) == "TOO_MANY_QUESTIONS"


def test_an_answered_question_does_not_count() -> None:
    state, effects = tell(running(limits=Limits(max_open_questions=2)), frames(*ASKS[:2]))
    [first, _] = only(effects, RecordQuestion)
    assert isinstance(first, RecordQuestion)
    _, effects = tell(state, QuestionAnswered(first.question_id, "yes"), frames(ASKS[2]))
    assert len(only(effects, RecordQuestion)) == 1
    assert only(effects, m.KillWorker) == []


def _failed_and_killed(effects: list[m.Effect]) -> str | None:
    assert effects[0] == m.KillWorker()
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    return finish.code

"""Questions of a run to a person: asked, answered, and how long the other clocks stood still meanwhile. Pure.

The truth about answers is in the store, where the first one wins; what the actor is told is a hint, and what it is not
told it finds by looking every `LOOK_SECONDS` while something is open.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import Answer, Ask
from lobu_actors.contract.text import storable, storable_json
from lobu_actors.conversation.adoption import asked_again
from lobu_actors.conversation.messages import Effect, SendFrame
from lobu_actors.conversation.outcome import Step, fail_run_and_worker
from lobu_actors.conversation.question_messages import LoadAnswers, RecordAnswer, RecordQuestion
from lobu_actors.conversation.state import Moment, Question, Run, RunPhase, State

LOOK_SECONDS = 2.0


def ask(state: State, run: Run, frame: Ask, now: float) -> Step:
    if (again := asked_again(run, frame)) is not None:
        return replace(state, run=run), again
    if len(run.questions) >= state.limits.max_open_questions:
        return fail_run_and_worker(state, run, TurnError.TOO_MANY_QUESTIONS, now=now)
    question = Question(f"{run.run_id}-{run.asked}", frame.question_id)
    run = replace(
        run,
        questions=(*run.questions, question),
        asked=run.asked + 1,
        waiting_since=run.waiting_since if run.questions else now,
        answers_at=now + LOOK_SECONDS,
        progress_at=now,
    )
    options = None if frame.options is None else tuple(storable(option) for option in frame.options)
    record = RecordQuestion(
        run.turns[0],
        run.run_id,
        question.question_id,
        frame.question_id,
        storable(frame.prompt),
        options,
        storable_json(frame.extra),
    )
    return replace(state, run=run), [record]


def answered(state: State, answers: Iterable[tuple[str, str]], moment: Moment) -> Step:
    """Hand answers to the worker. What is not open here is none of this run's business any more."""
    effects: list[Effect] = []
    for question_id, answer in answers:
        run = state.run
        if run is None or run.phase is not RunPhase.LIVE:
            break
        found = next((question for question in run.questions if question.question_id == question_id), None)
        if found is None:
            continue
        frame = Answer(run_id=run.run_id, question_id=found.worker_question_id, answer=answer)
        effects += [RecordAnswer(run.turns[0], question_id, answer), SendFrame(frame)]
        state = replace(state, run=_closed(run, found, answer, moment.now))
    return state, effects


def look(state: State, run: Run, moment: Moment) -> Step:
    """Time to look whether somebody answered on another host."""
    if not run.questions or run.answers_at > moment.now:
        return state, []
    run = replace(run, answers_at=moment.now + LOOK_SECONDS)
    return replace(state, run=run), [LoadAnswers(tuple(question.question_id for question in run.questions))]


def _closed(run: Run, question: Question, answer: str, now: float) -> Run:
    left = tuple(other for other in run.questions if other is not question)
    if run.adopted:
        run = replace(run, told=(*run.told, (question.worker_question_id, answer)))
    if left:
        return replace(run, questions=left)
    # The turn's clock stood still while a person was asked.
    started_at = run.started_at + now - run.waiting_since
    return replace(run, questions=(), started_at=started_at, progress_at=now, heard_at=now)

"""What a conversation's actor is told, and wants done, about questions to a person. Part of `messages`."""

from __future__ import annotations

import attrs

from lobu_actors.store.records import Turn


@attrs.frozen
class QuestionAnswered:
    """The store took this answer as the first."""

    question_id: str
    answer: str


@attrs.frozen
class AnswersLoaded:
    answers: tuple[tuple[str, str], ...]  # (question id, answer)


@attrs.frozen
class RecordQuestion:
    turn: Turn
    run_id: str
    question_id: str
    worker_question_id: str
    prompt: str
    options: tuple[str, ...] | None


@attrs.frozen
class RecordAnswer:
    turn: Turn
    question_id: str
    answer: str


@attrs.frozen
class LoadAnswers:
    """Answers AnswersLoaded."""

    question_ids: tuple[str, ...]

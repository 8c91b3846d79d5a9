"""What a conversation's actor is told, and wants done, about questions to a person. Part of `messages`."""

from __future__ import annotations

from typing import Any

import msgspec

from lobu_actors.store.records import Turn


class QuestionAnswered(msgspec.Struct, frozen=True):
    """The store took this answer as the first."""

    question_id: str
    answer: str


class AnswersLoaded(msgspec.Struct, frozen=True):
    answers: tuple[tuple[str, str], ...]  # (question id, answer)


class RecordQuestion(msgspec.Struct, frozen=True):
    turn: Turn
    run_id: str
    question_id: str
    worker_question_id: str
    prompt: str
    options: tuple[str, ...] | None
    extra: dict[str, Any] = {}


class RecordAnswer(msgspec.Struct, frozen=True):
    turn: Turn
    question_id: str
    answer: str


class LoadAnswers(msgspec.Struct, frozen=True):
    """Answers AnswersLoaded."""

    question_ids: tuple[str, ...]

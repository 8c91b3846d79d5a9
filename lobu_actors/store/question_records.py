"""Records about questions to a person, and about a run that is adopted with those that it has asked."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from lobu_actors.contract.events import Data


class NewQuestion(msgspec.Struct, frozen=True):
    """A question of a live run to a person; `data` is its event's."""

    question_id: str  # unique in the organization
    worker_question_id: str  # unique in the run
    run_id: str
    turn_id: str
    prompt: str
    options: tuple[str, ...] | None
    data: Data
    attempt: int | None
    text_offset: int | None


class AskedQuestion(msgspec.Struct, frozen=True):
    """A question that a run had asked before it was adopted."""

    question_id: str
    worker_question_id: str
    answer: str | None
    told: bool  # the answer stands in the event log, so it may have reached the worker too


class AdoptedRun(msgspec.Struct, frozen=True):
    """A live run that was moved to another lease."""

    age_seconds: float
    start_seq: int  # the newest event that came before its text
    questions: tuple[AskedQuestion, ...]
    provider_failed_code: str | None = None  # its provider had said no, and nothing came since


class AnswerOutcome(StrEnum):
    ACCEPTED = "accepted"
    ALREADY_ANSWERED = "already-answered"  # by another answer, which stays
    WITHDRAWN = "withdrawn"  # its turn has ended
    NOT_FOUND = "not-found"

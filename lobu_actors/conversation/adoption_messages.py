"""What an actor wants done, and is told, of a run that an earlier supervisor began. Part of `messages`."""

from __future__ import annotations

import msgspec

from lobu_actors.store.question_records import AskedQuestion


class AdoptRun(msgspec.Struct, frozen=True):
    """Commit that the live run goes on here and open its text anew. Answers RunAdopted or LeaseLost."""

    run_id: str
    message_id: str
    attempt: int


class RunAdopted(msgspec.Struct, frozen=True):
    """A predecessor's live run is this lease's."""

    run_id: str
    age_seconds: float
    questions: tuple[AskedQuestion, ...]
    provider_code: str | None = None

"""Questions to a person: asked by a conversation's owner, answered by anybody who may. See queries/questions.sql."""

from __future__ import annotations

from collections.abc import Sequence

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres.rows import Part, lease_params, ref_params, to_event, to_json
from lobu_actors.store.question_records import AnswerOutcome, NewQuestion
from lobu_actors.store.records import Event, Lease


class QuestionPart(Part):
    """Implements the questions of `protocol.ActorStore` and `protocol.ConversationStore`."""

    async def ask_question(self, lease: Lease, question: NewQuestion) -> Event | None:
        params = lease_params(lease) | {
            "question_id": question.question_id,
            "run_id": question.run_id,
            "turn_id": question.turn_id,
            "worker_question_id": question.worker_question_id,
            "prompt": question.prompt,
            "options": None if question.options is None else to_json(question.options),
            "data": to_json(question.data),
            "attempt": question.attempt,
            "text_offset": question.text_offset,
        }
        rows = await self.write("ask_question_if_lease_held", params)
        if not rows:
            rows = await self.read("find_asked_question", params)
        return to_event(lease.ref, rows[0]) if rows else None

    async def answer_question(
        self, ref: ConversationRef, question_id: str, *, answer: str, answered_by: str, answer_id: str | None = None
    ) -> AnswerOutcome:
        params = ref_params(ref) | {
            "question_id": question_id,
            "answer": answer,
            "answered_by": answered_by,
            "answer_id": answer_id,
        }
        rows = await self.write("answer_question", params)
        if not rows:
            return AnswerOutcome.NOT_FOUND
        status, owed, won = rows[0]
        if won:
            return AnswerOutcome.ACCEPTED
        return AnswerOutcome.ALREADY_ANSWERED if status == "answered" or owed else AnswerOutcome.WITHDRAWN

    async def find_answered_question(self, ref: ConversationRef, answer_id: str) -> str | None:
        rows = await self.read("find_answered_question", ref_params(ref) | {"answer_id": answer_id})
        return rows[0][0] if rows else None

    async def find_answers(self, ref: ConversationRef, question_ids: Sequence[str]) -> dict[str, str]:
        params = ref_params(ref) | {"question_ids": list(question_ids)}
        return dict(await self.read("find_answers", params))

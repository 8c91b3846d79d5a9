"""Questions to a person, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus
from lobu_actors.store.memory.actors import ActorPart
from lobu_actors.store.memory.tables import QuestionRow, pass_checkpoint
from lobu_actors.store.question_records import AdoptedRun, AnswerOutcome, AskedQuestion, NewQuestion
from lobu_actors.store.records import Event, Lease, NewEvent


class QuestionPart(ActorPart):
    """Implements the questions of `protocol.ActorStore` and `protocol.ConversationStore`."""

    async def ask_question(self, lease: Lease, question: NewQuestion) -> Event | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        known = self.tables.questions.get((lease.ref.organization_id, question.question_id))
        if known is not None:
            return known.event if known.ref == lease.ref and known.epoch == lease.epoch else None
        live = {run.record.run_id for run in self.tables.live_runs(lease.ref)}
        if row is None or not self.tables.holds(lease) or question.run_id not in live:
            return None
        event = self._append(
            row,
            lease,
            NewEvent(
                EventType.QUESTION,
                question.data,
                question.turn_id,
                question.run_id,
                question.attempt,
                question.text_offset,
            ),
        )
        made = QuestionRow(
            lease.ref, question.run_id, question.turn_id, question.worker_question_id, event, lease.epoch
        )
        self.tables.questions[lease.ref.organization_id, question.question_id] = made
        return event

    async def adopt_run(self, lease: Lease, run_id: str) -> AdoptedRun | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        run = self.tables.runs.get((lease.ref.organization_id, run_id))
        if row is None or run is None or run.ref != lease.ref or run.record.status is not RunStatus.LIVE:
            return None
        if not self.tables.holds(lease):
            return None
        run.record = replace(run.record, host_id=lease.host_id, epoch=lease.epoch)
        codes: list[str] = []
        for marker in self.tables.owed(lease.ref):
            if marker.run_id == run_id:
                marker.host_id, marker.deadline = lease.host_id, None
                codes += [marker.provider_failed_code] if marker.provider_failed_code else []
        before = [event.seq for event, _ in row.events if event.begins_anew]
        told = {event.data["questionId"] for event, _ in row.events if event.type is EventType.QUESTION_ANSWERED}
        questions = tuple(
            AskedQuestion(question_id, asked.worker_question_id, asked.answer, question_id in told)
            for (organization_id, question_id), asked in self.tables.questions.items()
            if organization_id == lease.ref.organization_id and asked.run_id == run_id
        )
        age = self.tables.clock() - run.started_at
        return AdoptedRun(age, max(before, default=0), questions, max(codes, default=None))

    async def request_cancel(self, lease: Lease, run_id: str) -> bool:
        await pass_checkpoint()
        run = self.tables.runs.get((lease.ref.organization_id, run_id))
        if run is None or run.ref != lease.ref or run.record.status is not RunStatus.LIVE:
            return False
        if not self.tables.holds(lease):
            return False
        run.record = replace(run.record, cancel_requested=True)
        return True

    async def answer_question(
        self, ref: ConversationRef, question_id: str, *, answer: str, answered_by: str, answer_id: str | None = None
    ) -> AnswerOutcome:
        await pass_checkpoint()
        row = self.tables.questions.get((ref.organization_id, question_id))
        if row is None or row.ref != ref:
            return AnswerOutcome.NOT_FOUND
        if row.answer is not None:
            same = (row.answer, row.answered_by) == (answer, answered_by)
            return AnswerOutcome.ACCEPTED if same else AnswerOutcome.ALREADY_ANSWERED
        marker = self.tables.markers.get((ref.organization_id, row.turn_id))
        if marker is None or marker.run_id != row.run_id:
            return AnswerOutcome.WITHDRAWN
        row.answer, row.answered_by, row.answer_id = answer, answered_by, answer_id
        return AnswerOutcome.ACCEPTED

    async def find_answered_question(self, ref: ConversationRef, answer_id: str) -> str | None:
        await pass_checkpoint()
        for (_, question_id), row in self.tables.questions.items():
            if row.ref == ref and row.answer_id == answer_id:
                return question_id
        return None

    async def find_answers(self, ref: ConversationRef, question_ids: Sequence[str]) -> dict[str, str]:
        await pass_checkpoint()
        found = {}
        for question_id in question_ids:
            row = self.tables.questions.get((ref.organization_id, question_id))
            if row is not None and row.ref == ref and row.answer is not None:
                found[question_id] = row.answer
        return found

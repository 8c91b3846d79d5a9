"""The history of a turn, in memory."""

from __future__ import annotations

from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.memory.tables import Part, RunRow, pass_checkpoint
from lobu_actors.store.records import Event
from lobu_actors.store.timeline_protocol import EventHistory, RunHistory, TurnHistory

_DETAILS = {
    EventType.CANCEL: "stage",
    EventType.RESTART: "reason",
    EventType.QUESTION: "questionId",
    EventType.QUESTION_ANSWERED: "questionId",
}


class TimelinePart(Part):
    """Implements `timeline_protocol.TimelineStore`."""

    async def read_turn_history(self, ref: ConversationRef, turn_id: str) -> TurnHistory | None:
        await pass_checkpoint()
        turn = self.tables.turns.get((ref.organization_id, turn_id))
        row = self.tables.conversation(ref)
        if turn is None or row is None or turn.ref != ref:
            return None
        events = [
            (event, at.timestamp() * 1e3)
            for (event, _), at in zip(row.events, row.event_times, strict=True)
            if event.turn_id == turn_id and event.seq > turn.first_seq
        ]
        end = next((place for place, (event, _) in enumerate(events) if event.type in TERMINAL_EVENTS), None)
        ended_ms = None if end is None else events[end][1]
        events = events if end is None else events[: end + 1]
        runs = [run for run in self.tables.runs.values() if run.ref == ref and turn_id in run.record.turn_ids]
        return TurnHistory(
            turn.turn_id, turn.message_id, turn.status, turn.error_code, turn.accepted_at.timestamp() * 1e3, ended_ms,
            tuple(_run(run) for run in sorted(runs, key=lambda run: run.started_at)),
            tuple(EventHistory(event.type, at, _detail(event)) for event, at in events),
        )  # fmt: skip


def _run(row: RunRow) -> RunHistory:
    record, ended_at = row.record, row.ended_at
    return RunHistory(
        record.run_id, record.attempt, record.status, record.host_id, record.epoch, row.started_at * 1e3,
        None if ended_at is None else ended_at.timestamp() * 1e3, row.error_code, row.exit_status, row.timeline,
    )  # fmt: skip


def _detail(event: Event) -> str | None:
    name = _DETAILS.get(event.type)
    return None if name is None else event.data.get(name)

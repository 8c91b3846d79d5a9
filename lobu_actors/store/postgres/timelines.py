"""The history of a turn, on Postgres."""

from __future__ import annotations

from typing import Any

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.postgres.rows import Part, ref_params
from lobu_actors.store.timeline_protocol import EventHistory, RunHistory, TurnHistory


class TimelinePart(Part):
    """Implements `timeline_protocol.TimelineStore`."""

    async def read_turn_history(self, ref: ConversationRef, turn_id: str) -> TurnHistory | None:
        rows = await self.read("read_turn_history", ref_params(ref) | {"turn_id": turn_id})
        if not rows:
            return None
        turn, message_id, status, error_code, accepted_ms, ended_ms, runs, events = rows[0]
        return TurnHistory(
            turn, message_id, TurnStatus(status), error_code, accepted_ms, ended_ms,
            tuple(_run(run) for run in runs),
            tuple(EventHistory(EventType(type), at_ms, detail) for type, at_ms, detail in events),
        )  # fmt: skip


def _run(row: list[Any]) -> RunHistory:
    run_id, attempt, status, host_id, epoch, started_ms, ended_ms, code, exit_status, marks = row
    marked = tuple((at, name, said) for at, name, said in marks)
    return RunHistory(
        run_id, attempt, RunStatus(status), host_id, epoch, started_ms, ended_ms, code, exit_status, marked
    )

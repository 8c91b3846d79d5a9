"""What a timeline asks of the store: all that rows know about when a turn did what, and nothing of its contents."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus

Mark = tuple[float, str, str | None]  # milliseconds from the run's start, a `contract.timeline.Moment`, detail


class RunHistory(msgspec.Struct, frozen=True):
    """One attempt. Times are milliseconds since the epoch, by the database's clock."""

    run_id: str
    attempt: int
    status: RunStatus
    host_id: str
    epoch: int
    started_ms: float
    ended_ms: float | None
    error_code: str | None
    exit_status: str | None
    marks: tuple[Mark, ...]


class EventHistory(msgspec.Struct, frozen=True):
    """A durable event. `detail`: a cancel's stage, a question's id, why it was begun anew."""

    type: EventType
    at_ms: float
    detail: str | None


class TurnHistory(msgspec.Struct, frozen=True):
    turn_id: str
    message_id: str
    status: TurnStatus
    error_code: str | None
    accepted_ms: float
    ended_ms: float | None
    runs: tuple[RunHistory, ...]  # in the order in which they began
    events: tuple[EventHistory, ...]  # in the log's order


class TimelineStore(Protocol):
    async def read_turn_history(self, ref: ConversationRef, turn_id: str) -> TurnHistory | None:
        """None: this conversation has no such turn (any more)."""
        ...

"""What can stand in a turn's timeline: names of its entries, and the form in which they go out. Pure vocabulary.

Marks are what the owner of a run noticed while it ran, in milliseconds from the run's start; everything else in a
timeline is read from rows that are there anyway. Neither ever holds what people or models wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Moment(StrEnum):
    ACCEPTED = "accepted"  # the message is durable
    LEASE = "lease"  # the conversation's lease was taken for it
    WORKER_ASKED = "worker-asked"
    WORKER_READY = "worker-ready"
    STARTED = "started"  # an attempt: its run is durable
    ADOPTED = "adopted"  # another supervisor goes on with the same attempt
    SENT = "sent"  # the worker was given it
    FIRST_DELTA = "first-delta"
    TOOL = "tool"
    TOOL_ENDED = "tool-ended"
    QUESTION = "question"
    ANSWERED = "answered"
    CANCEL_REQUESTED = "cancel-requested"
    CANCEL = "cancel"  # a stage of it
    WORKER_GONE = "worker-gone"
    REQUEUED = "requeued"  # the attempt is over, and the turn waits for the next one
    RESTART = "restart"  # readers were told to forget the attempt before
    COMMITTED = "committed"  # the terminal event is durable
    DELIVERED = "delivered"  # the first stream was given it


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a timeline. `at_ms`: since the epoch; both numbers to a tenth of a millisecond."""

    at_ms: float
    name: Moment
    since_start_ms: float  # from the acceptance
    detail: str | None = None

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"at": round(self.at_ms), "name": self.name.value, "sinceStartMs": self.since_start_ms}
        return shown if self.detail is None else shown | {"detail": self.detail}

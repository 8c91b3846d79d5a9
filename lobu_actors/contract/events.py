"""The Server-Sent Events that clients see: names, data, ids, and which of them are durable or terminal.

`id:` is `<seq>` behind a durable event and `<seq>.<attempt>.<offset>` behind output, `offset` counting the code points
of that attempt's text so far. From any id ever sent, a reader can be given exactly what it lacks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_CURSOR = re.compile(r"(\d{1,18})(?:\.(\d{1,9})\.(\d{1,18}))?\Z")

Data = dict[str, Any]

# All fields of ours that events about a worker's turn may have.
OWN_FIELDS = frozenset(
    (
        *("type", "messageId", "timestamp", "status", "phase", "content", "questionId", "prompt", "options"),
        *("processedMessageIds", "finalText", "usage", "files", "toolCalls", "error", "errorCode", "errorContext"),
    )
)


class EventType(StrEnum):
    CONNECTED = "connected"
    OUTPUT = "output"
    STATUS = "status"
    EPHEMERAL = "ephemeral"
    QUESTION = "question"
    QUESTION_ANSWERED = "question-answered"
    CANCEL = "cancel"
    RESTART = "restart"
    COMPLETE = "complete"
    AGENT_ERROR = "agent-error"
    CANCELLED = "cancelled"
    GAP = "gap"
    DRAIN = "drain"
    CLOSED = "closed"


DURABLE_EVENTS = frozenset(
    {
        EventType.QUESTION,
        EventType.QUESTION_ANSWERED,
        EventType.CANCEL,
        EventType.RESTART,
        EventType.COMPLETE,
        EventType.AGENT_ERROR,
        EventType.CANCELLED,
        EventType.CLOSED,
    }
)
TERMINAL_EVENTS = frozenset({EventType.COMPLETE, EventType.AGENT_ERROR, EventType.CANCELLED})

# The older clients' name of AGENT_ERROR; sent right after it with the same id and data.
ERROR_ALIAS = "error"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader has come. `attempt` and `offset` are None right behind a durable event."""

    seq: int
    attempt: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        return str(self.seq) if self.attempt is None else f"{self.seq}.{self.attempt}.{self.offset}"


def parse_cursor(text: str) -> Cursor:
    """Raises ValueError for what was never an id of ours."""
    match = _CURSOR.match(text)
    if match is None:
        raise ValueError("a cursor is <seq> or <seq>.<attempt>.<offset>, as in the id of an earlier event")
    seq, attempt, offset = match.groups()
    if attempt is None:
        return Cursor(int(seq))
    return Cursor(int(seq), int(attempt), int(offset))


def connected(agent_id: str, timestamp_ms: int) -> Data:
    return {"agentId": agent_id, "timestamp": timestamp_ms}


def output(content: str, message_id: str, timestamp_ms: int) -> Data:
    return {"type": "delta", "content": content, "messageId": message_id, "timestamp": timestamp_ms}


def status(status: str, phase: str | None, message_id: str, timestamp_ms: int) -> Data:
    data: Data = {"type": "status", "status": status}
    if phase is not None:
        data["phase"] = phase
    return data | {"messageId": message_id, "timestamp": timestamp_ms}


def ephemeral(content: str, message_id: str | None, timestamp_ms: int) -> Data:
    return {"type": "ephemeral", "content": content, "messageId": message_id, "timestamp": timestamp_ms}


def question(question_id: str, prompt: str, options: list[str] | None, message_id: str) -> Data:
    return {"questionId": question_id, "prompt": prompt, "options": options, "messageId": message_id}


def with_extra(data: Data, extra: Data) -> Data:
    """`data` and the fields that a worker sent beside those of the protocol: passed on, but never in place of ours."""
    if not extra:
        return data
    return data | {name: value for name, value in extra.items() if name not in OWN_FIELDS}


def question_answered(question_id: str, answer: str) -> Data:
    return {"questionId": question_id, "answer": answer}


def cancel(stage: str, message_id: str) -> Data:
    return {"stage": stage, "messageId": message_id}


def restart(message_id: str, attempt: int, reason: str) -> Data:
    return {"messageId": message_id, "attempt": attempt, "reason": reason}


def complete(message_id: str, processed: list[str], final_text: str, usage: Data | None, timestamp_ms: int) -> Data:
    data: Data = {
        "type": "complete",
        "messageId": message_id,
        "processedMessageIds": processed,
        "finalText": final_text,
    }
    if usage is not None:
        data["usage"] = usage
    return data | {"timestamp": timestamp_ms}


def agent_error(
    message_id: str, processed: list[str], code: str, error: str, context: Data | None, timestamp_ms: int
) -> Data:
    data: Data = {"type": "error", "error": error, "errorCode": code}
    if context:
        data["errorContext"] = context
    return data | {"messageId": message_id, "processedMessageIds": processed, "timestamp": timestamp_ms}


def cancelled(message_id: str, processed: list[str], final_text: str, timestamp_ms: int) -> Data:
    return {
        "messageId": message_id,
        "processedMessageIds": processed,
        "finalText": final_text,
        "timestamp": timestamp_ms,
    }


def gap(from_seq: int, to_seq: int, reason: str) -> Data:
    return {"from": from_seq, "to": to_seq, "reason": reason}


def drain(reconnect_in_ms: int) -> Data:
    return {"reconnectInMs": reconnect_in_ms}


def closed(reason: str) -> Data:
    return {"reason": reason}

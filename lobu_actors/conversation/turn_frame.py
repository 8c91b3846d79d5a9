"""The one place where a turn is made ready for a worker, and so the gate before it. Pure.

A run without run id, organization or conversation cannot be guarded: its writes would name nothing. It never starts.
"""

from __future__ import annotations

from lobu_actors.contract.frames import Json, TurnFrame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.records import Turn


class UnguardedRun(ValueError):
    """The run lacks what its guards need; the message says what."""


def turn_frame(
    ref: ConversationRef,
    run_id: str,
    turns: tuple[Turn, ...],
    attempt: int,
    *,
    run_token: str,
    summary: str | None = None,
    traceparent: str | None = None,
) -> TurnFrame:
    """The `turn` frame of a run. Raises UnguardedRun; then the turns must go back to the queue."""
    names = {
        "run id": run_id,
        "organization": ref.organization_id,
        "agent": ref.agent_id,
        "conversation": ref.conversation_id,
        "run token": run_token,
    }
    missing = [name for name, value in names.items() if not value]
    if missing:
        raise UnguardedRun(f"the run lacks its {', '.join(missing)}")
    if not turns or any(turn.ref != ref for turn in turns):
        raise UnguardedRun("the run's turns are not all this conversation's")
    messages: list[Json] = [{**turn.payload, "messageId": turn.message_id, "content": turn.content} for turn in turns]
    extra: Json = {} if summary is None else {"summary": summary}
    if traceparent is not None:
        extra["traceparent"] = traceparent
    return TurnFrame(run_id=run_id, attempt=attempt, messages=messages, run_token=run_token, extra=extra)

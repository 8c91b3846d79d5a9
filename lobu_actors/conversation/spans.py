"""The spans of a run and of the turns that end with it, made when it is over. Pure.

    lobu.turn                 from acceptance to the terminal event's commit; below the client's span, if it has one
    ├── lobu.queue            to the first attempt
    ├── lobu.run              an attempt; workers are told its id, so that theirs hang below it
    │   ├── lobu.worker       a worker was asked for, to ready (it may lie before the run)
    │   ├── lobu.first-delta  from the sending to the first text
    │   ├── lobu.tool         each tool
    │   └── lobu.question     each question, until it was answered
    └── (accept, deliver)     the edge's

A run of several turns hangs below the first of them; the others link to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.timeline import Moment
from lobu_actors.contract.tracing import Span, TraceContext, context_of_turn, span_id_of
from lobu_actors.conversation.marks import Mark
from lobu_actors.store.records import Turn

SpanSink = Callable[[Span], None]  # never waits, never raises

# What has a beginning and an end: the names of both, and of the span.
_PARTS = {
    Moment.WORKER_ASKED: (Moment.WORKER_READY, "lobu.worker"),
    Moment.SENT: (Moment.FIRST_DELTA, "lobu.first-delta"),
    Moment.TOOL: (Moment.TOOL_ENDED, "lobu.tool"),
    Moment.QUESTION: (Moment.ANSWERED, "lobu.question"),
}
_ENDS = {end for end, _ in _PARTS.values()}


class Ended(msgspec.Struct, frozen=True):
    """A run that is over, or turns that ended without one. `ends` is False when its turns wait for another attempt."""

    ref: ConversationRef
    turns: Sequence[Turn]
    status: str
    code: str | None
    end_ms: float
    run_id: str | None = None
    attempt: int = 1
    start_ms: float = 0.0
    marks: Sequence[Mark] = ()
    ends: bool = True


def spans_of(ended: Ended) -> Iterator[Span]:
    """None for turns whose client said that its trace is not recorded."""
    run = None
    if ended.run_id is not None and ended.turns:
        context = context_of_turn(ended.turns[0].turn_id, ended.turns[0].payload)
        run = (context.trace_id, span_id_of(ended.run_id))
        if context.sampled:
            yield from _of_run(ended, context, ended.run_id)
    if ended.ends:
        for number, turn in enumerate(ended.turns):
            context = context_of_turn(turn.turn_id, turn.payload)
            if context.sampled:
                yield _of_turn(ended, turn, context, run if number else None)


def _of_turn(ended: Ended, turn: Turn, context: TraceContext, run: tuple[str, str] | None) -> Span:
    return Span(
        "lobu.turn",
        context.trace_id,
        span_id_of(turn.turn_id),
        context.span_id,
        turn.accepted_at.timestamp() * 1e3,
        ended.end_ms,
        {
            "lobu.turn_id": turn.turn_id,
            "lobu.message_id": turn.message_id,
            "lobu.conversation": ended.ref.conversation_id,
            "lobu.agent": ended.ref.agent_id,
            "lobu.organization": ended.ref.organization_id,
            "lobu.status": ended.status,
        },
        links=(run,) if run is not None else (),
        error=ended.code,
    )


def _of_run(ended: Ended, context: TraceContext, run_id: str) -> Iterator[Span]:
    turn, run = ended.turns[0], span_id_of(run_id)
    root = span_id_of(turn.turn_id)
    named: dict[str, str | int | float] = {"lobu.run_id": run_id, "lobu.attempt": ended.attempt}
    accepted_ms = turn.accepted_at.timestamp() * 1e3
    if ended.attempt == 1:
        queue = span_id_of(f"{run_id} queue")
        yield Span("lobu.queue", context.trace_id, queue, root, accepted_ms, max(accepted_ms, ended.start_ms))
    parts, events = _parts(ended)
    yield Span(
        "lobu.run", context.trace_id, run, root, ended.start_ms, ended.end_ms, named, events=events, error=ended.code
    )
    for number, (name, start_ms, end_ms, detail) in enumerate(parts):
        shown = {} if detail is None else {"lobu.detail": detail}
        yield Span(name, context.trace_id, span_id_of(f"{run_id} {number}"), run, start_ms, end_ms, shown)


def _parts(ended: Ended) -> tuple[list[tuple[str, float, float, str | None]], tuple[tuple[float, str], ...]]:
    """Marks in pairs as spans, the rest as events. What has no end ends with the run."""
    parts: list[tuple[str, float, float, str | None]] = []
    events: list[tuple[float, str]] = []
    for number, (offset, name, detail) in enumerate(ended.marks):
        at = ended.start_ms + offset
        if name not in _PARTS:
            if name not in _ENDS:
                events.append((at, name))
            continue
        until, span = _PARTS[Moment(name)]
        same = (mark for mark in ended.marks[number + 1 :] if mark[1] == until)
        if until is Moment.ANSWERED:
            same = (mark for mark in same if mark[2] == detail)
        found = next(same, None)
        if found is None and until is Moment.FIRST_DELTA:
            events.append((at, name))
            continue
        parts.append((span, at, ended.end_ms if found is None else ended.start_ms + found[0], detail))
    return parts, tuple(events)

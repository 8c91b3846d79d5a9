"""The edge's part in traces: it takes a client's context in with its message, and tells of acceptance and delivery.

What it has to remember of a turn for its delivery is bounded, and kept only where somebody wants spans. Must not know
where spans go.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from edge.request import Headers
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.tracing import (
    MAX_TRACESTATE_CHARS,
    TRACEPARENT,
    TRACESTATE,
    Span,
    TraceContext,
    context_of_turn,
    parse_traceparent,
    span_id_of,
)
from lobu_actors.store.records import NewTurn, Turn

SpanSink = Callable[[Span], None]
_Key = tuple[ConversationRef, str]


def with_context(turn: NewTurn, headers: Headers) -> NewTurn:
    """`turn` with its request's trace context, which travels with it as a client's own fields do.

    One among these wins: the head of a WebSocket is that of all messages which come over it.
    """
    given = headers.get(TRACEPARENT)
    if given is None or parse_traceparent(given) is None or parse_traceparent(turn.payload.get(TRACEPARENT)):
        return turn
    context = {TRACEPARENT: given}
    state = headers.get(TRACESTATE, "")
    if state and state.isascii() and len(state) <= MAX_TRACESTATE_CHARS:
        context[TRACESTATE] = state
    return replace(turn, payload=turn.payload | context)


class Traces:
    """`sink` None: nobody wants spans, and nothing is remembered."""

    def __init__(self, sink: SpanSink | None, capacity: int) -> None:
        self._sink = sink
        self._capacity = capacity
        self._known: OrderedDict[_Key, tuple[str, TraceContext]] = OrderedDict()

    def accepted(self, turn: Turn, took_seconds: float) -> None:
        """It is durable now, after so long."""
        if self._sink is None:
            return
        now_ms = time.time() * 1e3
        context = context_of_turn(turn.turn_id, turn.payload)
        if not context.sampled:
            return
        self._known[turn.ref, turn.message_id] = (turn.turn_id, context)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)
        self._tell("lobu.accept", turn.turn_id, context, now_ms - took_seconds * 1e3, now_ms)

    def delivered(self, ref: ConversationRef, message_id: str, committed_ms: float, now_ms: float) -> None:
        """A stream was given the terminal event; the first one's time is of interest."""
        if self._sink is not None and (known := self._known.pop((ref, message_id), None)) is not None:
            self._tell("lobu.deliver", *known, min(committed_ms, now_ms), now_ms)

    def _tell(self, name: str, turn_id: str, context: TraceContext, start_ms: float, end_ms: float) -> None:
        assert self._sink is not None
        span_id = span_id_of(f"{turn_id} {name}")
        self._sink(Span(name, context.trace_id, span_id, span_id_of(turn_id), start_ms, end_ms))

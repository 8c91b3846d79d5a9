"""Trace contexts as W3C has them, and spans as plain values. Pure: no library of tracing is known here.

A turn's trace is its client's, if that sent a `traceparent`, else one of its own that is named by the turn's id. Spans
are made when they are over, from what was noted meanwhile, so their ids are made from the ids of what they tell about:
whoever needs one to hang something below it (a worker, another process, a later attempt) makes the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from uuid import UUID

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
MAX_TRACESTATE_CHARS = 512
SAMPLED = 1

# Version 00, and any later one by its first four fields; ids of zeros are none.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """`span_id` is the parent's; None: the trace begins here."""

    trace_id: str
    span_id: str | None
    sampled: bool


@dataclass(frozen=True, slots=True)
class Span:
    """One that is over. Times are milliseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start_ms: float
    end_ms: float
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    events: tuple[tuple[float, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()  # trace id, span id
    error: str | None = None  # the code that it failed with


def parse_traceparent(text: object) -> TraceContext | None:
    """None for what is no such header: then the trace begins anew, as the standard says."""
    match = _TRACEPARENT.match(text) if isinstance(text, str) and len(text) <= MAX_TRACESTATE_CHARS else None
    if match is None:
        return None
    return TraceContext(match[1], match[2], bool(int(match[3], 16) & SAMPLED))


def context_of_turn(turn_id: str, payload: Mapping[str, Any]) -> TraceContext:
    """Where the turn's own span hangs."""
    given = parse_traceparent(payload.get(TRACEPARENT))
    return given or TraceContext(_trace_id(turn_id), None, sampled=True)


def span_id_of(name: str) -> str:
    """The span of the turn, the run, or the part of one that has this name."""
    return blake2b(name.encode(), digest_size=8).hexdigest()


def traceparent(context: TraceContext, span_id: str) -> str:
    return f"00-{context.trace_id}-{span_id}-{SAMPLED if context.sampled else 0:02x}"


def _trace_id(turn_id: str) -> str:
    try:
        return UUID(turn_id).hex
    except ValueError:
        return blake2b(turn_id.encode(), digest_size=16).hexdigest()

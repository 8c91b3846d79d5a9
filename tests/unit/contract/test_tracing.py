"""Trace contexts: what is one, what is none, and ids that everybody computes alike."""

from __future__ import annotations

import pytest

from lobu_actors.contract.ids import new_id
from lobu_actors.contract.tracing import context_of_turn, parse_traceparent, span_id_of, traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"01-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
    ],
)
def test_a_context(text: str, sampled: bool) -> None:
    context = parse_traceparent(text)
    assert context is not None
    assert (context.trace_id, context.span_id, context.sampled) == (TRACE, SPAN, sampled)
    assert parse_traceparent(traceparent(context, SPAN)) == context


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        7,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_what_is_none(text: object) -> None:
    assert parse_traceparent(text) is None


def test_a_turn_without_one_has_its_own_id_as_its_trace() -> None:
    turn_id = new_id()
    own = context_of_turn(turn_id, {"traceparent": "nonsense"})
    assert (own.trace_id, own.span_id, own.sampled) == (turn_id.replace("-", ""), None, True)
    assert len(context_of_turn("not a uuid", {}).trace_id) == 32
    given = context_of_turn(turn_id, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    assert (given.trace_id, given.span_id, given.sampled) == (TRACE, SPAN, False)


def test_ids_of_spans_are_the_same_everywhere() -> None:
    assert span_id_of("run 1") == span_id_of("run 1") != span_id_of("run 2")
    assert len(span_id_of("run 1")) == 16

"""When terminal events were given to streams: the first time of each, and no more than so many."""

from __future__ import annotations

from werkzeug.datastructures import Headers

from edge.deliveries import Deliveries
from edge.tracing import Traces, with_context
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.tracing import Span
from lobu_actors.store.records import NewTurn

REF = ConversationRef("org", "echo", "echo_u_org")
CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_first_time_counts_and_the_oldest_are_forgotten() -> None:
    deliveries = Deliveries(2, Traces(None, 10))
    for at, message in enumerate(("m1", "m2", "m1", "m3"), start=1):
        deliveries.note(REF, {"messageId": message}, at)
    assert deliveries.of(REF, "m1") is None
    assert deliveries.of(REF, "m2") == (2, 1)
    assert deliveries.of(REF, "m3") == (4, 1)
    deliveries.note(REF, {"messageId": "m3"}, 9)
    assert deliveries.of(REF, "m3") == (4, 2)
    assert deliveries.of(ConversationRef("other", "echo", "echo_u_org"), "m3") is None


def test_a_delivery_is_told_once_and_only_of_turns_that_were_accepted_here() -> None:
    told: list[Span] = []
    deliveries = Deliveries(10, Traces(told.append, 10))
    deliveries.note(REF, {"messageId": "elsewhere", "timestamp": 1}, 2)
    assert told == []


def test_a_request_brings_its_context_if_it_is_one() -> None:
    turn = NewTurn(REF, "t1", "m1", "hi", payload={"a": 1, "traceparent": "the client's own field"})
    assert with_context(turn, Headers()) is turn
    assert with_context(turn, Headers({"traceparent": "nonsense"})) is turn
    found = with_context(turn, Headers({"Traceparent": CONTEXT, "tracestate": "a=b"}))
    assert found.payload == {"a": 1, "traceparent": CONTEXT, "tracestate": "a=b"}
    own = NewTurn(REF, "t1", "m1", "hi", payload={"traceparent": CONTEXT.replace("0af7", "1bf7")})
    assert with_context(own, Headers({"traceparent": CONTEXT})) is own
    long = with_context(turn, Headers({"traceparent": CONTEXT, "tracestate": "x" * 513}))
    assert "tracestate" not in long.payload

"""Spans from what was marked: one for each thing with a beginning and an end, none for who does not want any."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.contract.tracing import span_id_of
from lobu_actors.conversation.spans import Ended, spans_of
from lobu_actors.store.records import Turn

REF = ConversationRef("org", "echo", "echo_u_org")
AT = datetime(2027, 1, 1, tzinfo=UTC)
START = AT.timestamp() * 1e3
UNWANTED = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


def turn(name: str, **payload: str) -> Turn:
    return Turn(REF, name, f"m-{name}", "secret", OnBusy.ENQUEUE, payload, TurnStatus.RUNNING, 1, 0, 0, 0, AT)


def ended(*turns: Turn, **more: Any) -> Ended:
    fields: dict[str, Any] = {"run_id": "r1", "start_ms": START + 10} | more
    return Ended(REF, turns, "completed", None, START + 100, **fields)


def test_a_run_of_two_turns_hangs_below_the_first_and_the_other_links_to_it() -> None:
    spans = list(spans_of(ended(turn("t1"), turn("t2"))))
    assert [span.name for span in spans] == ["lobu.queue", "lobu.run", "lobu.turn", "lobu.turn"]
    queue, run, first, second = spans
    assert run.parent_id == first.span_id == queue.parent_id == span_id_of("t1")
    assert second.trace_id != first.trace_id
    assert second.links == ((run.trace_id, run.span_id),)
    assert (queue.start_ms, queue.end_ms, first.end_ms) == (START, START + 10, START + 100)
    assert "secret" not in str(spans)


def test_parts_have_ends_and_what_has_none_ends_with_the_run() -> None:
    marks = [
        (-5.0, "worker-asked", None),
        (-1.0, "worker-ready", "pid 7"),
        (0.5, "sent", None),
        (1.0, "tool", "search"),
        (4.0, "tool-ended", None),
        (5.0, "question", "q1"),
        (6.0, "question", "q2"),
        (7.0, "answered", "q2"),
        (8.0, "cancel-requested", None),
    ]
    spans = {(span.name, span.attributes.get("lobu.detail")): span for span in spans_of(ended(turn("t1"), marks=marks))}
    for name, detail, start, end in (
        ("lobu.worker", None, 5, 9),
        ("lobu.tool", "search", 11, 14),
        ("lobu.question", "q1", 15, 100),
        ("lobu.question", "q2", 16, 17),
    ):
        span = spans[name, detail]
        assert (span.start_ms - START, span.end_ms - START) == (start, end), name
        assert span.parent_id == span_id_of("r1")
    assert spans["lobu.run", None].events == ((START + 10.5, "sent"), (START + 18, "cancel-requested"))
    assert len({span.span_id for span in spans.values()}) == len(spans)


def test_an_attempt_that_is_not_the_last_has_no_span_of_its_turn() -> None:
    names = [span.name for span in spans_of(ended(turn("t1"), attempt=2, ends=False))]
    assert names == ["lobu.run"]


def test_turns_that_never_ran() -> None:
    [span] = spans_of(ended(turn("t1"), run_id=None))
    assert span.name == "lobu.turn"


def test_who_does_not_want_to_be_recorded_is_not() -> None:
    assert list(spans_of(ended(turn("t1", **UNWANTED)))) == []
    assert [span.name for span in spans_of(ended(turn("t1", **UNWANTED), turn("t2")))] == ["lobu.turn"]

"""The bytes of the stream, to the letter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import sse
from lobu_actors.contract import events
from lobu_actors.contract.events import Cursor, EventType, parse_cursor
from lobu_actors.gateway.feed import Outgoing

FAILURE = events.agent_error("m1", ["m1"], "WORKER_CRASHED", "it crashed", None, 5)


def test_first_frame_carries_retry_and_data_together() -> None:
    assert sse.first_frame("key", 7, 1000) == (
        b'retry: 1000\nevent: connected\ndata: {"agentId":"key","timestamp":7}\n\n'
    )


def test_durable_event_has_its_id_in_the_frame_of_its_data() -> None:
    sent = sse.encode_event(Outgoing(EventType.CLOSED, events.closed("deleted"), Cursor(9)))
    assert sent == b'id: 9\nevent: closed\ndata: {"reason":"deleted"}\n\n'


def test_event_without_a_place_has_no_id() -> None:
    sent = sse.encode_event(Outgoing(EventType.DRAIN, events.drain(5), None))
    assert sent == b'event: drain\ndata: {"reconnectInMs":5}\n\n'


def test_failed_turn_goes_out_twice_with_one_id_and_the_same_data() -> None:
    first, second, rest = sse.encode_event(Outgoing(EventType.AGENT_ERROR, FAILURE, Cursor(3))).split(b"\n\n")
    assert rest == b""
    assert first.startswith(b"id: 3\nevent: agent-error\ndata: ")
    assert second == first.replace(b"event: agent-error", b"event: error")


def test_keep_alive_is_a_comment() -> None:
    assert sse.PING == b": ping\n\n"


@pytest.mark.parametrize("value", [10**30, float("inf"), "\ud800", {"deep": [2**70]}])
def test_what_the_fast_encoder_refuses_is_sent_all_the_same(value: object) -> None:
    sent = sse.encode_event(Outgoing(EventType.COMPLETE, {"usage": value}, Cursor(1)))
    assert sent.count(b"\n") == 4


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(1, 4))
def test_any_text_survives_splitting_on_one_line_each(text: str, size: int) -> None:
    whole = Outgoing(EventType.OUTPUT, events.output(text, "m1", 5), Cursor(4, 2, 100 + len(text)))
    parts = list(sse.split_output(whole, size))
    read, at = "", 100
    for part in parts:
        raw = sse.encode_event(part)
        id_line, event, data, *rest = raw.decode().split("\n")
        assert rest == ["", ""]
        assert event == "event: output"
        assert len(raw.decode().splitlines()) == 4, "no reader sees another line break"
        content = json.loads(data.removeprefix("data: "))["content"]
        read, at = read + content, at + len(content)
        assert parse_cursor(id_line.removeprefix("id: ")) == Cursor(4, 2, at)
    assert read == text


def test_only_output_is_split() -> None:
    long = Outgoing(EventType.COMPLETE, {"content": "x" * 99, "finalText": "x" * 99}, Cursor(1))
    assert list(sse.split_output(long, 5)) == [long]

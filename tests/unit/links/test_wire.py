"""Messages survive the wire, and nothing that comes over it does more than raise WireError."""

from __future__ import annotations

import contextlib
from typing import Any, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.status import Node
from lobu_actors.store.records import Event

NUMBERS = st.integers(-(2**53), 2**53)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
REFS = st.builds(ConversationRef, TEXTS, TEXTS, TEXTS)
JSON = st.dictionaries(TEXTS, st.none() | NUMBERS | TEXTS | st.lists(TEXTS, max_size=3), max_size=4)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    str: TEXTS,
    bool: st.booleans(),
    bytes: st.binary(max_size=50),
    float: st.floats(allow_nan=False, allow_infinity=False),
    ConversationRef: REFS,
    dict[str, Any]: JSON,
    EventType: st.sampled_from(EventType),
    wire.Method: st.sampled_from(get_args(wire.Method)),
    Node: st.recursive(
        st.builds(Node, TEXTS, TEXTS, TEXTS, NUMBERS),
        lambda below: st.builds(Node, TEXTS, TEXTS, TEXTS, NUMBERS, st.lists(below, max_size=2).map(tuple)),
        max_leaves=4,
    ),
}


def built(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = {field.name: field.type for field in msgspec.structs.fields(kind)}
    return st.builds(kind, **{name: valued(hint) for name, hint in hints.items()})


def valued(hint: Any) -> st.SearchStrategy[Any]:
    if hint in VALUES:
        return VALUES[hint]
    if type(None) in get_args(hint):
        [inner] = [one for one in get_args(hint) if one is not type(None)]
        return st.none() | valued(inner)
    if get_origin(hint) is tuple:
        inner, *others = get_args(hint)
        if others == [...]:
            return st.lists(valued(inner), max_size=3).map(tuple)
        return st.tuples(*map(valued, (inner, *others)))
    return built(hint)


CLIENT = st.one_of([built(kind) for kind in get_args(wire.ClientMessage)])
SERVER = st.one_of([built(kind) for kind in get_args(wire.ServerMessage)])


@given(CLIENT)
def test_what_a_client_says_arrives_as_it_was(message: wire.ClientMessage) -> None:
    assert wire.from_client(wire.encode(message)) == message


@given(SERVER)
def test_what_a_server_says_arrives_as_it_was(message: wire.ServerMessage) -> None:
    assert wire.from_server(wire.encode(message)) == message


@settings(max_examples=500)
@given(st.text(max_size=60) | st.binary(max_size=20) | JSON.map(lambda value: msgspec.json.encode(value).decode()))
def test_noise_is_refused(frame: str | bytes) -> None:
    for decode in (wire.from_client, wire.from_server):
        with pytest.raises(wire.WireError):
            decode(frame)


@settings(max_examples=500)
@given(CLIENT | SERVER, st.integers(0, 10_000), st.text(max_size=3))
def test_a_damaged_frame_is_refused_or_another_message(message: wire.Message, at: int, put: str) -> None:
    frame = wire.encode(message)
    at %= len(frame)
    damaged = frame[:at] + put + frame[at + 1 :]
    for decode in (wire.from_client, wire.from_server):
        with contextlib.suppress(wire.WireError):
            assert isinstance(decode(damaged), wire.Message)


@pytest.mark.parametrize(
    "frame", ["[" * 100_000, '{"is":"live","follow":' + "9" * 5000 + "}", '{"is":"hello"}', "\ud800"]
)
def test_traps(frame: str) -> None:
    for decode in (wire.from_client, wire.from_server):
        with pytest.raises(wire.WireError):
            decode(frame)


def test_what_cannot_travel_is_not_sent() -> None:
    with pytest.raises(wire.WireError, match="longer"):
        wire.encode(wire.Appended(1, 0, "x" * wire.MAX_FRAME_CHARS))
    with pytest.raises(wire.WireError, match="encoded"):
        wire.encode(wire.Appended(1, 0, "half a pair: \ud83d"))


def test_a_later_versions_new_fields_are_ignored() -> None:
    assert wire.from_client('{"is":"hello","lowest":1,"highest":1,"colour":"blue"}') == wire.Hello(1, 1)


@pytest.mark.parametrize(
    ("lowest", "highest", "common"), [(1, 1, 1), (1, 9, 1), (0, 1, 1), (2, 9, None), (0, 0, None), (3, 1, None)]
)
def test_versions(lowest: int, highest: int, common: int | None) -> None:
    assert wire.common_version(wire.Hello(lowest, highest)) == common


def test_an_event_arrives_whole() -> None:
    ref = ConversationRef("o", "a", "c")
    event = Event(ref, 7, "t", EventType.QUESTION, {"questionId": "q"}, "r", 2, 40)
    message = wire.from_server(wire.encode(wire.Durable.of(3, event)))
    assert isinstance(message, wire.Durable)
    assert message.event(ref) == event

"""What programs of an earlier day wrote is read today, and what is written today has all that they read.

The texts here were written by them and do not change: who has to change one has made a new version (`wire.VERSIONS`,
or, of a label, one that costs the worker when a supervisor is replaced). New fields may come, with defaults.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.link import wire
from supervisor.links import notices
from supervisor.workers import label

REF = ConversationRef("acme", "echo", "echo_ann_acme")
TEXT = wire.Text("m1", 2, 7, "so far", 9)
STATUS = wire.Status(True, 1, 1, 3)

FROM_CLIENT = [
    ('{"is":"hello","lowest":1,"highest":1}', wire.Hello(1, 1)),
    ('{"is":"follow","add":[[4,["acme","echo","echo_ann_acme"]]],"drop":[3]}', wire.Follow(((4, REF),), (3,))),
    ('{"is":"hint","ref":["acme","echo","echo_ann_acme"],"message_id":"m1"}', wire.Hint(REF, "m1")),
    (
        '{"is":"answered","ref":["acme","echo","echo_ann_acme"],"question_id":"q1","answer":"yes"}',
        wire.Answered(REF, "q1", "yes"),
    ),
    (
        '{"is":"call","call_id":5,"method":"cancel","ref":["acme","echo","echo_ann_acme"],"argument":"m1"}',
        wire.Call(5, "cancel", REF, "m1"),
    ),
]
FROM_SERVER = [
    ('{"is":"welcome","version":1,"proof":"token"}', wire.Welcome(1, "token")),
    ('{"is":"state","draining":true}', wire.State(True)),
    (
        '{"is":"live","follow":4,"epoch":3,"last_seq":8,"text":{"message_id":"m1","attempt":2,"start_seq":7,'
        '"content":"so far","length":9}}',
        wire.Live(4, 3, 8, TEXT),
    ),
    ('{"is":"elsewhere","follows":[4]}', wire.Elsewhere((4,))),
    (
        '{"is":"begun","follow":4,"text":{"message_id":"m1","attempt":2,"start_seq":7,"content":"so far","length":9}}',
        wire.Begun(4, TEXT),
    ),
    ('{"is":"appended","follow":4,"offset":9,"content":"more"}', wire.Appended(4, 9, "more")),
    ('{"is":"text-ended","follow":4}', wire.TextEnded(4)),
    (
        '{"is":"transient","follow":4,"type":"status","data":{"status":"reads"}}',
        wire.Transient(4, EventType.STATUS, {"status": "reads"}),
    ),
    (
        '{"is":"durable","follow":4,"seq":8,"type":"complete","data":{"finalText":"hi"},"turn_id":"t1","run_id":"r1",'
        '"attempt":2,"text_offset":9}',
        wire.Durable(4, 8, EventType.COMPLETE, {"finalText": "hi"}, "t1", "r1", 2, 9),
    ),
    ('{"is":"in-log","follow":4,"seq":8}', wire.InLog(4, 8)),
    ('{"is":"owner","ref":["acme","echo","echo_ann_acme"],"host_id":"b"}', wire.Owner(REF, "b")),
    ('{"is":"piece","call_id":5,"data":"YWJj"}', wire.Piece(5, b"abc")),
    (
        '{"is":"reply","call_id":5,"done":true,"value":"cancelled","number":2,"status":{"active":true,"queued":1,'
        '"running":1,"streams":3},"host":null}',
        wire.Reply(5, True, "cancelled", 2, STATUS),
    ),
]
LABEL = (
    '{"ref":["acme","echo","echo_ann_acme"],"worker":"echo","token":"secret","capabilities":["cancel"],'
    '"mid_frame":true}'
)


@pytest.mark.parametrize(("text", "message"), FROM_CLIENT)
def test_what_a_client_of_a_link_says(text: str, message: wire.ClientMessage) -> None:
    assert wire.from_client(text) == message
    assert has_all(json.loads(wire.encode(message)), json.loads(text))


@pytest.mark.parametrize(("text", "message"), FROM_SERVER)
def test_what_a_server_of_a_link_says(text: str, message: wire.ServerMessage) -> None:
    assert wire.from_server(text) == message
    assert has_all(json.loads(wire.encode(message)), json.loads(text))


def test_every_kind_of_message_is_here() -> None:
    recorded = {type(message) for _, message in (*FROM_CLIENT, *FROM_SERVER)}
    assert recorded == {*get_args(wire.ClientMessage), *get_args(wire.ServerMessage)}


def test_a_notice_and_the_label_of_a_worker() -> None:
    assert json.loads(notices.payload([(REF, "m1"), (REF, None)])) == [[[*REF], "m1"], [[*REF], None]]
    known = label.Label(REF, "echo", "secret", ("cancel",), mid_frame=True)
    assert label.decode(LABEL) == known
    assert has_all(json.loads(label.encode(known)), json.loads(LABEL))


def has_all(written: Any, recorded: Any) -> bool:
    if isinstance(recorded, dict):
        return isinstance(written, dict) and all(
            name in written and has_all(written[name], value) for name, value in recorded.items()
        )
    return bool(written == recorded)

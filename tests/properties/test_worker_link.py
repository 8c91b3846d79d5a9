"""The count of a worker's link: whatever is cut and whenever, everything arrives, once, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.worker_link import LinkError, Outbox

STEPS = st.lists(st.sampled_from(["put", "send", "arrive", "tell", "hear", "cut"]), max_size=200)


@given(STEPS)
def test_everything_arrives_once_and_in_order(steps: list[str]) -> None:
    outbox, put = Outbox(), 0
    wire: list[str] = []  # sent over the present connection, not arrived
    said: list[int] = []  # acknowledgements on their way back
    arrived: list[str] = []

    def do(step: str) -> None:
        nonlocal put
        if step == "put":
            outbox.put(str(put))
            put += 1
        elif step == "send":
            wire.extend(text for text in [outbox.next()] if text is not None)
        elif step == "arrive" and wire:
            arrived.append(wire.pop(0))
        elif step == "tell":
            said.append(len(arrived))
        elif step == "hear" and said:
            outbox.received(said.pop(0))
        elif step == "cut":  # what is on its way, in both directions, is lost
            wire.clear()
            said.clear()
            outbox.resume(len(arrived))

    for step in steps:
        do(step)
        assert arrived == [str(number) for number in range(len(arrived))]
    do("cut")
    while (text := outbox.next()) is not None:
        arrived.append(text)
    assert arrived == [str(number) for number in range(put)]
    outbox.received(put)
    assert outbox.empty
    assert outbox.pending_bytes == 0


def test_an_acknowledgement_that_cannot_be() -> None:
    outbox = Outbox()
    outbox.put("a")
    with pytest.raises(LinkError, match="received 1"):
        outbox.received(1)  # it was not sent
    outbox.next()
    outbox.received(1)
    with pytest.raises(LinkError, match="received 0"):
        outbox.received(0)


@given(st.binary(max_size=1000), st.integers(0, 1 << 40), st.text(max_size=50), st.booleans())
def test_messages_come_back_as_they_were(data: bytes, offset: int, name: str, last: bool) -> None:
    piece = link.Piece.of("input", name, offset, data, last=last)
    again = link.decode(link.encode(piece))
    assert again == piece
    assert isinstance(again, link.Piece)
    assert again.content == data


@pytest.mark.parametrize(
    "message",
    [
        link.Join("gpu", 1, 1, "box", "w1", "h1", 7),
        link.Joined("h1", "w1", 20.0, 3),
        link.Received(5),
        link.Prepare("same"),
        link.Kill(),
        link.Ended("exited", "It exited with code 3.", 3, None),
    ],
)
def test_every_message_has_its_form(message: link.LinkMessage) -> None:
    assert link.decode(link.encode(message)) == message


@pytest.mark.parametrize("text", ['{"type":"delta","text":"a \\"link.kill\\""}', "{", "[]", '"link."', '{"type":7}'])
def test_what_is_no_message_of_the_link_is_a_frame(text: str) -> None:
    assert link.decode(text) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"link.dance"}',
        '{"type":"link.received"}',
        '{"type":"link.received","received":"3"}',
        '{"type":"link.received","received":true}',
        '{"type":"link.join","worker":"x"}',
    ],
)
def test_what_is_wrong_is_said(text: str) -> None:
    with pytest.raises(LinkError):
        link.decode(text)


def test_a_piece_that_is_no_base64() -> None:
    with pytest.raises(LinkError, match="base64"):
        link.Piece("input", "x", 0, "%%", True).content  # noqa: B018

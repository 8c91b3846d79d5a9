"""Calls that a worker leaves to the client: what of them goes on to the turn's end."""

from __future__ import annotations

from typing import Any

import pytest

from lobu_actors.contract.frames import Complete, decode_worker_frame
from lobu_actors.conversation import messages as m
from tests.unit.conversation.test_decide import frames, only, running, tell

CALL = {"id": "c1", "name": "look", "arguments": "{}"}


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (None, ()),
        ([CALL], (CALL,)),
        ([CALL, {"id": "c2", "name": "look"}, "x", CALL | {"arguments": {}}], (CALL,)),  # no calls are left out
        ([CALL | {"name": "lo\0ok"}], (CALL | {"name": "lo\N{REPLACEMENT CHARACTER}ok"},)),
    ],
)
def test_calls_are_passed_on(said: Any, passed: tuple[Any, ...]) -> None:
    _, effects = tell(running(), frames(Complete(run_id="r1", text="I look.", tool_calls=said)))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.text, finish.tool_calls) == ("I look.", passed)


def test_their_name_on_the_wire() -> None:
    frame = decode_worker_frame(b'{"type":"complete","runId":"r1","toolCalls":[{"id":"c1"}]}\n')
    assert frame == Complete(run_id="r1", tool_calls=[{"id": "c1"}])

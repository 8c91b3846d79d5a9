"""What a worker says beside its text may be nested as deeply as its line can be read: its turn ends as it says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lobu_actors.contract.frames import Complete, Fail, Frame, FrameError, decode_worker_frame
from lobu_actors.contract.text import MAX_LEVELS
from lobu_actors.conversation import messages as m
from tests.unit.conversation.test_decide import frames, only, running, tell


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def deepest(line: str) -> Frame:
    """With as many levels as can be read at all."""
    for levels in range(2000, MAX_LEVELS, -10):
        try:
            return decode_worker_frame(line.replace("…", nested(levels)).encode())
        except FrameError:
            continue
    raise AssertionError("nothing can be read")


def levels_of(value: Any) -> int:
    levels = 0
    while isinstance(value, dict):
        value, levels = value["a"], levels + 1
    return levels


def test_a_deep_usage() -> None:
    frame = deepest('{"type":"complete","runId":"r1","usage":…}')
    assert isinstance(frame, Complete)
    [end] = only(tell(running(), frames(frame))[1], m.FinishTurns)
    assert isinstance(end, m.FinishTurns)
    assert levels_of(end.usage) == MAX_LEVELS
    assert msgspec.json.encode(end.usage)


@pytest.mark.parametrize("levels", [MAX_LEVELS, MAX_LEVELS + 1])
def test_a_deep_context(levels: int) -> None:
    frame = Fail(run_id="r1", code="NO", message="no", context=msgspec.json.decode(nested(levels)))
    [end] = only(tell(running(), frames(frame))[1], m.FinishTurns)
    assert isinstance(end, m.FinishTurns)
    assert levels_of(end.context) == MAX_LEVELS

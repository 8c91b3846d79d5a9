"""Replies as messages of a chat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from supervisor.singletons.telegram.text import CUT, EMPTY, MAX_PARTS, MAX_UNITS, split, told, utf16_units

_WORDS = st.text(alphabet=st.sampled_from("ab \n\U0001f600é"), max_size=300).map(lambda text: text * 40)


@given(_WORDS)
def test_the_parts_are_the_text_and_each_is_fit(text: str) -> None:
    parts = split(text)
    assert all(part.strip() and utf16_units(part) <= MAX_UNITS for part in parts)
    if text.strip():
        assert "".join("".join(parts).split()) == "".join(text.split())
    else:
        assert parts == [EMPTY]


def test_units_are_those_of_utf_16() -> None:
    for text in ("a", "é", "\U0001f600", "x\U0001f600" * 50):
        assert utf16_units(text) == len(text.encode("utf-16-le")) // 2


def test_no_character_is_cut() -> None:
    parts = split("x" + "\U0001f600" * MAX_UNITS)
    assert [utf16_units(part) for part in parts] == [4095, 4096, 2]


def test_cut_where_a_line_or_a_word_ends() -> None:
    line = "x" * 3000 + "\n"
    assert split(line + "y" * 3000) == [line, "y" * 3000]
    assert split("x" * 3000 + " " + "y" * 3000) == ["x" * 3000 + " ", "y" * 3000]
    assert [len(part) for part in split("\n" + "x" * 5000)] == [4096, 905], "not far from full for an early line end"


def test_exactly_what_fits_is_one() -> None:
    assert split("x" * MAX_UNITS) == ["x" * MAX_UNITS]
    assert len(split("x" * (MAX_UNITS + 1))) == 2


def test_a_flood_is_cut_and_says_so() -> None:
    parts = split("x" * MAX_UNITS * (MAX_PARTS + 1))
    assert len(parts) == MAX_PARTS
    assert parts[-1].endswith(CUT)
    assert utf16_units(parts[-1]) <= MAX_UNITS
    assert not split("x" * MAX_UNITS * MAX_PARTS)[-1].endswith(CUT)


@pytest.mark.parametrize(
    ("event_type", "data", "text"),
    [
        (EventType.COMPLETE, events.complete("m", ["m"], "hello", None, 1), "hello"),
        (EventType.AGENT_ERROR, events.agent_error("m", [], "NO_PROGRESS", "It hung.", None, 1),
         "It hung. (NO_PROGRESS)"),
        (EventType.CANCELLED, events.cancelled("m", ["m"], "", 1), "Stopped."),
        (EventType.CANCELLED, events.cancelled("m", ["m"], "half", 1), "half\n\nStopped."),
    ],
)  # fmt: skip
def test_what_an_end_says(event_type: EventType, data: events.Data, text: str) -> None:
    assert told(event_type, data) == text

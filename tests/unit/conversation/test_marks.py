"""What is marked while a run goes on: in order, from the run's start, bounded."""

from __future__ import annotations

import trio

from lobu_actors.contract.timeline import Moment
from lobu_actors.conversation.marks import MAX_MARKS, SHOWN_CHARS, Marks


def named(marks: Marks) -> list[tuple[str, str | None]]:
    return [(name, detail) for _, name, detail in marks.of_run("r1")]


async def test_what_came_before_the_run_has_negative_times(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    marks.note(Moment.LEASE, "epoch 1")
    await trio.sleep(0.25)
    marks.begin(trio.current_time())
    await trio.sleep(0.5)
    marks.note(Moment.SENT)
    assert marks.of_run("r1") == [(-250.0, "lease", "epoch 1"), (500.0, "sent", None)]
    marks.end()
    marks.begin(trio.current_time())
    assert marks.of_run("r1") == [], "each is told of one run only"


async def test_only_the_first_text_and_each_tool_once(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    marks.begin(trio.current_time())
    marks.text()
    assert not marks.awaits_text
    marks.tool("search")
    marks.tool("search")
    marks.tool("shell")
    assert marks.awaits_text
    marks.text()
    marks.tool(None)
    assert named(marks) == [
        ("first-delta", None),
        ("tool", "search"),
        ("tool-ended", None),
        ("tool", "shell"),
        ("tool-ended", None),
    ]


async def test_marks_are_bounded_and_what_is_over_is_counted(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    marks.begin(trio.current_time())
    for number in range(MAX_MARKS + 5):
        marks.note(Moment.CANCEL, str(number))
    assert len(marks.of_run("r1")) == MAX_MARKS
    assert marks.dropped == 5
    marks.end()
    for _ in range(MAX_MARKS + 5):
        marks.note(Moment.LEASE)
    assert len(marks.before) == MAX_MARKS


async def test_a_tools_name_is_short_and_storable(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    marks.begin(trio.current_time())
    marks.tool("a\0" + "b" * 1000)
    [(_, detail)] = named(marks)
    assert detail is not None
    assert len(detail) == SHOWN_CHARS
    assert "\0" not in detail


async def test_turns_that_never_ran_have_none(autojump_clock: trio.testing.MockClock) -> None:
    marks = Marks()
    marks.note(Moment.LEASE)
    assert marks.of_run(None) == []
    assert marks.of_run("r1") == []

"""Log lines wait for what was decided with them, and for a second at most."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from lobu_actors.conversation.messages import Note
from lobu_actors.conversation.notes import WITHIN_SECONDS, Notes
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.timers import Timers

ONE, OTHER = Note("one"), Note("other")


class Context(ChildContext):
    def __init__(self) -> None:
        self.stopping = trio.Event()

    def started(self, value: object = None) -> None:
        pass


@pytest.fixture
async def timers(autojump_clock: trio.testing.MockClock) -> AsyncIterator[Timers]:
    timers, context = Timers(), Context()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run, context)
        yield timers
        context.stopping.set()


async def test_they_are_written_once_and_in_their_order(timers: Timers) -> None:
    written: list[Note] = []
    notes = Notes(timers, written.append)
    notes.add(ONE)
    notes.add(OTHER)
    assert written == []
    notes.flush()
    assert written == [ONE, OTHER]
    notes.flush()
    await trio.sleep(2 * WITHIN_SECONDS)
    assert written == [ONE, OTHER]


async def test_they_do_not_wait_for_what_takes_long(timers: Timers) -> None:
    written: list[Note] = []
    notes = Notes(timers, written.append)
    notes.add(ONE)
    await trio.sleep(WITHIN_SECONDS / 2)
    notes.add(OTHER)
    await trio.sleep(WITHIN_SECONDS / 4)
    assert written == []
    await trio.sleep(WITHIN_SECONDS / 2)
    assert written == [ONE, OTHER]
    notes.add(ONE)
    await trio.sleep(2 * WITHIN_SECONDS)
    assert written == [ONE, OTHER, ONE]

"""How the streams of an edge that stops end: one after the other, in bounded time, late ones at once."""

from __future__ import annotations

from contextlib import ExitStack

import trio
import trio.testing

from edge.settings import EdgeSettings
from edge.streams import Streams
from lobu_actors.contract.ids import ConversationRef


def ref(number: int) -> ConversationRef:
    return ConversationRef("acme", "echo", f"c{number}")


async def test_one_after_the_other_in_their_order(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams(EdgeSettings(drain_spacing_seconds=0.5, drain_seconds=60))
    with ExitStack() as stack:
        places = [stack.enter_context(streams.place(ref(number))) for number in range(3)]
        gone = ExitStack()
        gone.enter_context(streams.place(ref(9)))
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(streams.stop)
            gone.close()
            seen = []
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked()
                seen.append([place.over for place in places])
                with streams.place(ref(8)) as late:
                    assert late.over
                await trio.sleep(0.5)
        assert seen == [[True, False, False], [True, True, False], [True, True, True]]
        assert trio.current_time() - began == 1.5, "none is waited for that has gone"


async def test_however_many_there_are(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams(EdgeSettings(drain_spacing_seconds=1, drain_seconds=2))
    with ExitStack() as stack:
        places = [stack.enter_context(streams.place(ref(number))) for number in range(1000)]
        began = trio.current_time()
        await streams.stop()
        assert all(place.over for place in places)
        assert 1.9 < trio.current_time() - began < 2.1


async def test_all_at_once_when_it_may_take_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    streams = Streams(EdgeSettings(drain_spacing_seconds=1, drain_seconds=60))
    with ExitStack() as stack:
        places = [stack.enter_context(streams.place(ref(number))) for number in range(10)]
        with trio.move_on_after(2.5):
            await streams.stop()
        assert all(place.over for place in places)

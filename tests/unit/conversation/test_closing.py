"""A conversation that is ended is not taken up again by the actor that ended it."""

from __future__ import annotations

import trio.testing
from structlog.testing import capture_logs

from tests.fakes.actor_world import actors
from tests.fakes.edge_world import EdgeWorld


async def test_a_reload_before_its_end_does_not_begin_it_anew(autojump_clock: trio.testing.MockClock) -> None:
    """Its successor would want to close it, too, which is refused and counted as a write of one that lost its lease."""
    world = await EdgeWorld.make()
    ref = await world.conversation()
    with capture_logs() as logs:
        async with actors(world.store) as here:
            worker = await here.worker_of(await world.message(ref))
            await worker.given.wait()
            here.conversations.place_again(ref)
            await world.store.mark_closing(ref)
            assert await here.conversations.close(ref)
            await trio.testing.wait_all_tasks_blocked()
    assert [log for log in logs if log["event"] == "lease lost"] == []

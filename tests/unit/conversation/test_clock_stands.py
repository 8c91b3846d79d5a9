"""While a host's clock stands, and after it, its actors look at deadlines when these are due and not all the time."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from lobu_actors.contract.frames import Heartbeat
from lobu_actors.conversation.actor import ConversationActor
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.worker_port import WorkerFrames
from tests.fakes.actor_world import actors
from tests.fakes.edge_world import EdgeWorld

STOOD_SECONDS = 100.0
FEW = 20


async def test_a_clock_that_stands_is_looked_at_now_and_then(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    ticks: list[float] = []
    tick = ConversationActor._tick

    def count(self: ConversationActor) -> None:
        ticks.append(trio.current_time())
        assert len(ticks) < 5000, "it does nothing but look"
        tick(self)

    monkeypatch.setattr(ConversationActor, "_tick", count)
    world, running = await EdgeWorld.make(), RunningClock()
    ref = await world.conversation()
    async with actors(world.store, running=running) as here:
        await here.conversations.accepted(await world.message(ref))
        worker = await here.workers.next()
        await worker.ready()
        await worker.given.wait()
        running.go_on(trio.current_time() + 1)
        await trio.sleep(STOOD_SECONDS)
        stood, ticks[:] = len(ticks), []
        assert running.go_on(math.inf) > STOOD_SECONDS - 2
        for _ in range(10):
            await worker.deliver(WorkerFrames(worker.worker_id, (Heartbeat(),)))
            await trio.sleep(5)
        assert stood <= STOOD_SECONDS / 0.1, "while it stood"
        assert len(ticks) < FEW, "behind it"
        assert not worker.killed.is_set()
        await trio.sleep(16)
        assert worker.killed.is_set(), "its heartbeat is late"

"""What workers say does not become more and more series of a metric."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from lobu_actors import telemetry
from lobu_actors.contract.frames import Fail, TurnFrame
from tests.fakes.actor_world import actors
from tests.fakes.edge_world import EdgeWorld

TURNS = 5


@pytest.mark.parametrize(("codes", "counted"), [("MADE_UP_{}", "OTHER"), ("PROVIDER_QUOTA", "PROVIDER_QUOTA")])
async def test_a_code_of_a_workers_own(codes: str, counted: str, autojump_clock: trio.testing.MockClock) -> None:
    def series() -> dict[str, float]:
        samples = telemetry.TURNS_ENDED.collect()[0].samples
        return {sample.labels["code"]: sample.value for sample in samples if sample.name.endswith("_total")}

    world = await EdgeWorld.make()
    ref = await world.conversation()
    before = series()
    async with actors(world.store) as here:
        worker = None
        for number in range(TURNS):
            await here.conversations.accepted(await world.message(ref))
            if worker is None:
                worker = await here.workers.next()
                await worker.ready()
            await worker.given.wait()
            worker.given = trio.Event()
            frame = worker.frames[-1]
            assert isinstance(frame, TurnFrame)
            await worker.says(Fail(run_id=frame.run_id, code=codes.format(number), message="no"))
            await trio.testing.wait_all_tasks_blocked()
    after = series()
    assert after.keys() <= before.keys() | {counted}
    assert after[counted] - before.get(counted, 0) == TURNS

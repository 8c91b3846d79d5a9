"""Waiting for news or for a time: whichever is first, for each who waits, and nothing is left behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lobu_actors.gateway.waiting import Waiting
from lobu_actors.runtime.timers import Timers


class Scene:
    """Seconds since the beginning."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.waiting = Waiting(self.timers)
        self.began = trio.current_time()

    async def wait(self, until: float) -> None:
        await self.waiting.wait(self.began + until)

    @property
    def now(self) -> float:
        return round(trio.current_time() - self.began, 6)


@pytest.fixture
async def scene(nursery: trio.Nursery) -> Scene:
    scene = Scene()
    nursery.start_soon(scene.timers.fire)
    return scene


async def test_each_waits_until_its_own_time(scene: Scene, autojump_clock: MockClock) -> None:
    ended: list[tuple[float, float]] = []

    async def wait(until: float) -> None:
        await scene.wait(until)
        ended.append((until, scene.now))

    async with trio.open_nursery() as nursery:
        for until in (3.0, 1.0, 2.0, 2.0):
            nursery.start_soon(wait, until)
    assert ended == [(1.0, 1.0), (2.0, 2.0), (2.0, 2.0), (3.0, 3.0)]


async def test_news_end_every_wait_and_a_later_one_keeps_its_own_time(scene: Scene, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for until in (1.0, 5.0):
            nursery.start_soon(scene.wait, until)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
    assert scene.now == 0
    await scene.wait(4.0)  # past the alarm that was set for the first
    assert scene.now == 4.0


async def test_a_time_that_has_passed_ends_a_wait_at_once(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.wait(-1.0)
    assert scene.now == 0


async def test_who_is_cancelled_waits_no_more(scene: Scene, autojump_clock: MockClock) -> None:
    with trio.move_on_after(1.0) as scope:
        await scene.wait(2.0)
    assert scope.cancelled_caught
    scene.waiting.wake()  # which would fail for a task that does not wait
    await trio.sleep(3.0)

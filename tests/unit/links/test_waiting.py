"""Waiting for news or for a time: whichever is first, for each who waits, and nothing is left behind."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lobu_actors.gateway.waiting import FEW, WOKEN_AT_ONCE, Line, Waiting
from lobu_actors.runtime.timers import Timers


class Scene:
    """Seconds since the beginning."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.line = Line(self.timers)
        self.waiting = Waiting(self.line)
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


async def test_of_many_a_few_are_woken_in_one_pass_of_the_loop(scene: Scene) -> None:
    woken, number = 0, 10 * WOKEN_AT_ONCE

    async def wait() -> None:
        nonlocal woken
        await scene.wait(60.0)
        woken += 1

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
        before = passes = 0
        while woken < number:
            await trio.lowlevel.checkpoint()
            assert woken - before <= 2 * WOKEN_AT_ONCE, "in a pass, those of it and of the one before in any order"
            before, passes = woken, passes + 1
        assert passes < 10 * 10, "nobody is left waiting in between"


async def wait_in(ended: list[str], name: str, waiting: Waiting) -> None:
    await waiting.wait(trio.current_time() + 60.0)
    ended.append(name)


async def test_a_few_do_not_stand_in_line_behind_many(scene: Scene) -> None:
    ended: list[str] = []
    few = Waiting(scene.line)

    async with trio.open_nursery() as nursery:
        for _ in range(10 * WOKEN_AT_ONCE):
            nursery.start_soon(wait_in, ended, "many", scene.waiting)
        for _ in range(FEW):
            nursery.start_soon(wait_in, ended, "few", few)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
        few.wake()
    assert "few" not in ended[2 * WOKEN_AT_ONCE + FEW :]


async def test_two_of_many_each_take_turns(scene: Scene) -> None:
    ended: list[str] = []
    other = Waiting(scene.line)

    async with trio.open_nursery() as nursery:
        for name, waiting in (("one", scene.waiting), ("other", other)):
            for _ in range(3 * WOKEN_AT_ONCE):
                nursery.start_soon(wait_in, ended, name, waiting)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
        other.wake()
    halves = ended[: 3 * WOKEN_AT_ONCE]
    assert WOKEN_AT_ONCE <= halves.count("other") <= 2 * WOKEN_AT_ONCE


async def test_who_is_called_again_while_others_are_in_line_is_woken_once_more(scene: Scene) -> None:
    rounds = 0

    async def wait() -> None:
        nonlocal rounds
        for _ in range(2):
            await scene.wait(60.0)
            rounds += 1

    async with trio.open_nursery() as nursery:
        for _ in range(3 * WOKEN_AT_ONCE):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
        while rounds < WOKEN_AT_ONCE:
            await trio.lowlevel.checkpoint()
        scene.waiting.wake()
        await wait_all_tasks_blocked(0.01)
        assert 4 * WOKEN_AT_ONCE <= rounds < 6 * WOKEN_AT_ONCE, "those who stood in line yet took both at once"
        scene.waiting.wake()


async def test_who_is_cancelled_in_line_is_out_of_it(scene: Scene) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(2 * WOKEN_AT_ONCE):
            nursery.start_soon(scene.wait, 60.0)
        await wait_all_tasks_blocked()
        scene.waiting.wake()
        nursery.cancel_scope.cancel()
    assert not scene.waiting.wake_some(WOKEN_AT_ONCE)

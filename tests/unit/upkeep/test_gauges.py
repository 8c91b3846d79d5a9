"""What is owed shows in metrics, and nothing stale does while the store is away; a loop that stood still is seen."""

from __future__ import annotations

import math
import time

import pytest
import trio
from prometheus_client import REGISTRY

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.loop_lag import measure_loop_lag
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.owed_protocol import OwedNow
from supervisor.upkeep.gauges import Gauges


class Store:
    def __init__(self, *answers: OwedNow | StoreUnavailable) -> None:
        self._answers = list(answers)
        self.over = trio.Event()

    async def count_owed(self) -> OwedNow:
        if not self._answers:
            self.over.set()
            await trio.sleep_forever()
        answer = self._answers.pop(0)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def look(*answers: OwedNow | StoreUnavailable) -> None:
    store = Store(*answers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Gauges(store, look_seconds=0.001).run, ChildContext("gauges"))
        with trio.fail_after(10):
            await store.over.wait()
        nursery.cancel_scope.cancel()


async def test_what_is_owed_and_how_old_it_is() -> None:
    await look(OwedNow(1, 1, 9.0), OwedNow(3, 2, 1.5))
    assert shown("lobu_owed_turns", state="queued") == 3
    assert shown("lobu_owed_turns", state="running") == 2
    assert shown("lobu_oldest_owed_seconds") == 1.5


async def test_nothing_stale_is_shown() -> None:
    await look(OwedNow(3, 2, 1.5), StoreUnavailable("away"))
    assert shown("lobu_owed_turns", state="queued") is None
    age = shown("lobu_oldest_owed_seconds")
    assert age is not None
    assert math.isnan(age)
    await look(StoreUnavailable("away"), OwedNow(0, 0, 0.0))
    assert shown("lobu_oldest_owed_seconds") == 0


async def test_a_loop_that_stands_still_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lobu_actors.runtime.loop_lag.LOOK_SECONDS", 0.05)
    seen: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(measure_loop_lag, seen.append)
        await trio.testing.wait_all_tasks_blocked()
        seen.clear()  # of what the machine has done to it until now
        time.sleep(0.3)  # noqa: ASYNC251 - what is to be seen
        with trio.fail_after(10):
            while not seen:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert 0.1 < seen[0] < 5

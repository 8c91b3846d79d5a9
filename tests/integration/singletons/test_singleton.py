"""One activation in the cluster: taken, watched, stopped before its trust ends, given up, tried again."""

from __future__ import annotations

from itertools import pairwise

import pytest
import structlog
import trio

from lobu_actors.contract.states import HostState
from supervisor.singletons import singleton as module
from supervisor.singletons.singleton import STOP_SECONDS, Hold, SingletonLost
from tests.integration.singletons.conftest import World, until


class Body:
    """Notes when it runs; never two of them at once."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.most_at_once = 0
        self.runs: list[str] = []
        self.ended_at = 0.0
        self.hold: Hold | None = None

    async def run(self, hold: Hold) -> None:
        self.hold = hold
        self.running.append(hold.lease.host_id)
        self.runs.append(hold.lease.host_id)
        self.most_at_once = max(self.most_at_once, len(self.running))
        try:
            await trio.sleep_forever()
        finally:
            self.ended_at = trio.current_time()
            self.running.remove(hold.lease.host_id)


async def test_it_runs_on_one_host_and_on_the_next_when_that_is_stopped(world: World) -> None:
    body = Body()
    first, second = await world.host("h1"), await world.host("h2")
    context = await world.run(world.singleton(first, body.run))
    await until(lambda: body.running == ["h1"], "the first has it")
    await world.run(world.singleton(second, body.run))
    await trio.sleep(2.5 * module.RETRY_SECONDS)
    assert body.runs == ["h1"]
    context.stopping.set()
    await until(lambda: body.running == ["h2"], "the second has it")
    assert body.most_at_once == 1


async def test_of_a_host_that_is_dead_the_next_takes_it(world: World) -> None:
    body = Body()
    first, second = await world.host("h1"), await world.host("h2")
    await world.run(world.singleton(first, body.run))
    await until(lambda: body.running == ["h1"], "the first has it")
    await world.store.declare_host_dead("h1")
    await world.run(world.singleton(second, body.run))
    await until(lambda: "h2" in body.running, "the second has it")
    await until(lambda: body.running == ["h2"], "the first notices that it lost it, without writing anything")


async def test_it_stops_before_the_trust_ends_and_goes_on_when_that_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 3.0)  # longer than this process may have to wait for its turn
    body = Body()
    trust = await world.host("h1")
    trust.trusted_until = trio.current_time() + 6
    first_end = trio.current_time() + 3
    await world.run(world.singleton(trust, body.run))
    await until(lambda: body.running, "it has it")
    trust.trusted_until += 100
    await until(lambda: trio.current_time() > first_end, "what was trusted at first is over")
    assert len(body.running) == len(body.runs) == 1, "renewed in time, it goes on"
    trust.trusted_until = trio.current_time() + 4
    await until(lambda: not body.running, "it stops")
    assert trust.trusted_until - module.STOP_SECONDS <= body.ended_at < trust.trusted_until
    await trio.sleep(module.RETRY_SECONDS + 0.3)
    assert len(body.runs) == 1, "without trust it does not even ask"
    trust.trusted_until = trio.current_time() + 60
    await until(lambda: body.running, "it has it again")
    [lease] = await world.store.pool.fetch(b"SELECT epoch FROM actor_lease WHERE kind = 'poller'", write=False)
    assert lease[0] == 2


async def test_a_trust_that_ended_while_the_process_stood_still_is_not_brought_back(world: World) -> None:
    """Membership's renewal and the body's deadline are both late by then: the deadline wins."""
    body = Body()
    trust = await world.host("h1")
    await world.run(world.singleton(trust, body.run))
    await until(lambda: body.running, "it has it")
    trust.trusted_until = trio.current_time() + STOP_SECONDS + 1
    deadline = trust.trusted_until - STOP_SECONDS
    await until(lambda: body.hold is not None and body.hold.ends_at() == deadline, "it knows until when it may run")
    while trio.current_time() <= deadline:  # the whole loop stands still
        pass
    trust.trusted_until = trio.current_time() + 60
    await until(lambda: not body.running, "it is stopped all the same")


async def test_a_host_that_drains_gives_it_up(world: World) -> None:
    body = Body()
    first, second = await world.host("h1"), await world.host("h2")
    await world.run(world.singleton(first, body.run))
    await until(lambda: body.running == ["h1"], "the first has it")
    first.state = HostState.DRAINING
    await until(lambda: not body.running, "it stops")
    await world.run(world.singleton(second, body.run))
    await until(lambda: body.running == ["h2"], "the second has it, since it was given up")


async def test_a_body_that_fails_is_tried_again_later_and_later_on_another_host_at_once(world: World) -> None:
    began: list[tuple[str, float]] = []

    async def fail(hold: Hold) -> None:
        began.append((hold.lease.host_id, trio.current_time()))
        raise RuntimeError("made up")

    body = Body()
    await world.run(world.singleton(await world.host("h1"), fail))
    await until(lambda: len(began) == 3, "three tries")
    waits = [later - sooner for (_, sooner), (_, later) in pairwise(began)]
    assert waits[0] >= module.BACKOFF.delay(1)
    assert waits[1] >= module.BACKOFF.delay(2)
    await world.run(world.singleton(await world.host("h2"), body.run))
    await until(lambda: body.running == ["h2"], "the other has it")
    assert len(began) == 3, "before the first one tried again"


async def test_a_refused_write_ends_it_without_being_a_failure(world: World) -> None:
    tries = 0

    async def lose(hold: Hold) -> None:
        nonlocal tries
        tries += 1
        hold.check(False)

    with structlog.testing.capture_logs() as logs:
        await world.run(world.singleton(await world.host("h1"), lose))
        await until(lambda: tries == 3, "it asks for the lease again and again")
    said = [line["event"] for line in logs]
    assert "singleton lost, a write was refused" in said
    assert "singleton failed" not in said, "it would wait longer each time"
    assert issubclass(SingletonLost, Exception)

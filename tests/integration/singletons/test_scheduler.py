"""Watchers fire once for each time, whatever comes between the decision, the acceptance and its confirmation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import trio
from msgspec.structs import replace

from lobu_actors.store.records import Accepted, NewTurn, Refused
from lobu_actors.store.singleton_records import SingletonLease
from supervisor.singletons.inbox import Inbox
from supervisor.singletons.schedule import Schedule, Watcher
from supervisor.singletons.scheduler import Scheduler, run_id_of, scheduler_name
from supervisor.singletons.singleton import Singleton
from tests.integration.singletons.conftest import ORGANIZATION, Trust, World, until, until_asked

EVERY_SECOND = Watcher("tick", "echo", Schedule("* * * * * *"), "tick")
YEARLY = Watcher("yearly", "echo", Schedule("0 0 1 1 *"), "happy new year")


def scheduler(world: World, trust: Trust, *watchers: Watcher, inbox: Inbox | None = None) -> Singleton:
    body = Scheduler(ORGANIZATION, watchers, world.store, inbox or world.inbox)
    return Singleton(scheduler_name(ORGANIZATION), world.store, trust, body.run)


async def keys(world: World) -> list[str]:
    """Of the conversations that have a turn, in order."""
    rows = await world.store.pool.fetch(b"SELECT conversation_id FROM turn ORDER BY conversation_id", write=False)
    return [row[0] for row in rows]


async def set_back(world: World, watcher: Watcher, by: timedelta) -> datetime:
    """As if nobody had been up for so long."""
    trust = await world.host("past")
    lease = await world.store.acquire_singleton(scheduler_name(ORGANIZATION), trust.host_id)
    assert isinstance(lease, SingletonLease)
    [state] = await world.store.begin_watchers(lease, {watcher.id: str(watcher.schedule)})
    await world.store.release_singleton(lease)
    await world.store.pool.fetch(
        b"UPDATE watcher_state SET considered_until = considered_until - %(by)s::interval RETURNING 1",
        {"by": by},
        write=True,
    )
    return state.considered_until - by


async def test_each_time_is_one_turn_of_the_exact_name(world: World) -> None:
    await world.run(scheduler(world, await world.host("h1"), EVERY_SECOND))
    await until(lambda: len(world.gateway.hints) >= 4, "four firings")
    turns = world.gateway.hints[:4]
    for turn in turns:
        assert turn.content == "tick"
        scheduled = datetime.fromisoformat(turn.payload["scheduledAt"])
        assert turn.ref.conversation_id == f"echo_watcher_tick_run_{run_id_of(scheduled)}"
        assert scheduled <= turn.accepted_at < scheduled + timedelta(seconds=30)
    times = [datetime.fromisoformat(turn.payload["scheduledAt"]) for turn in turns]
    waits = [(later - sooner).total_seconds() for sooner, later in pairwise(times)]
    assert all(wait >= 1 and wait.is_integer() for wait in waits), waits
    assert min(waits) == 1, "none is left out, but while this process stood still"
    found = await world.store.find_conversation(ORGANIZATION, turns[0].ref.conversation_id)
    assert found is not None
    assert found.user_id == "watcher"


async def test_what_was_missed_is_made_up_for_once(world: World) -> None:
    await set_back(world, YEARLY, timedelta(days=5 * 366))
    await world.run(scheduler(world, await world.host("h1"), YEARLY))
    await until(lambda: world.gateway.hints, "it fires")
    await trio.sleep(0.5)
    year = datetime.now(UTC).year
    assert await keys(world) == [f"echo_watcher_yearly_run_{year}0101T000000Z"]


async def test_a_new_watcher_makes_up_for_nothing(world: World) -> None:
    await world.run(scheduler(world, await world.host("h1"), YEARLY))
    await trio.sleep(1)
    assert await keys(world) == []


async def test_another_schedule_begins_anew(world: World) -> None:
    await set_back(world, YEARLY, timedelta(days=366))
    changed = replace(YEARLY, schedule=Schedule("0 0 2 1 *"))
    await world.run(scheduler(world, await world.host("h1"), changed))
    await trio.sleep(1)
    assert await keys(world) == []


class Dying(Inbox):
    """Dies before or after a firing's acceptance."""

    def __init__(self, world: World, *, after: bool) -> None:
        super().__init__(world.store, world.gateway, world._judge, max_owed_turns=3)
        self._after = after
        self.died = trio.Event()

    async def take_in(self, turn: NewTurn, user_id: str) -> Accepted | Refused:
        if self._after:
            await super().take_in(turn, user_id)
        self.died.set()
        raise RuntimeError("died")


async def test_a_firing_that_was_decided_on_is_made_by_the_next_once(world: World) -> None:
    for after in (False, True):
        await world.store.pool.fetch(b"DELETE FROM watcher_state RETURNING 1", write=True)
        await world.store.pool.fetch(b"DELETE FROM turn RETURNING 1", write=True)
        await set_back(world, YEARLY, timedelta(days=366))
        dying = Dying(world, after=after)
        first = await world.run(scheduler(world, await world.host("h1"), YEARLY, inbox=dying))
        with trio.fail_after(20):
            await dying.died.wait()
        first.stopping.set()
        assert len(await keys(world)) == int(after)
        second = await world.run(scheduler(world, await world.host("h2"), YEARLY))
        await until_asked(lambda: none_pending(world), "it is confirmed")
        assert len(await keys(world)) == 1
        second.stopping.set()
        await until_asked(lambda: is_given_up(world), "it is given up")


async def is_given_up(world: World) -> bool:
    rows = await world.store.pool.fetch(b"SELECT host_id FROM actor_lease WHERE kind = 'scheduler'", write=False)
    return rows == [(None,)]


async def none_pending(world: World) -> bool:
    [(count,)] = await world.store.pool.fetch(
        b"SELECT count(*) FROM watcher_state WHERE last_fired_at IS NULL", write=False
    )
    return count == 0


async def test_a_predecessor_that_wakes_up_late_decides_nothing_more(world: World) -> None:
    """It stands still between its look at the clock and its decision, and meanwhile another has gone on."""
    watching = await world.host("h1")
    lease = await world.store.acquire_singleton(scheduler_name(ORGANIZATION), watching.host_id)
    assert lease is not None
    [state] = await world.store.begin_watchers(lease, {"tick": str(EVERY_SECOND.schedule)})
    await world.store.declare_host_dead("h1")
    await world.run(scheduler(world, await world.host("h2"), EVERY_SECOND))
    await until(lambda: len(world.gateway.hints) >= 2, "the next fires")
    late = state.considered_until + timedelta(seconds=1)
    assert not await world.store.claim_firing(lease, "tick", late)
    found = await keys(world)
    assert len(found) == len(set(found))


async def test_a_disabled_watchers_times_pass(world: World) -> None:
    """The scheduler runs without it: what it knew is forgotten, so nothing is made up for when it comes back."""
    await set_back(world, YEARLY, timedelta(days=366))
    first = await world.run(scheduler(world, await world.host("h1")))
    await until_asked(lambda: none_pending(world), "it is forgotten")
    first.stopping.set()
    await world.run(scheduler(world, await world.host("h2"), YEARLY))
    await trio.sleep(1.5)
    assert await keys(world) == []

"""Hosts that are over for long are forgotten, on both stores: never one that lives, or that something still names."""

from __future__ import annotations

from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import HostState
from lobu_actors.store.records import Activation, StartRun
from lobu_actors.store.singleton_records import SingletonName

AT_ONCE = 0.0  # older than now
DAY = 86_400.0


async def forget(store, *, older_than_seconds: float = AT_ONCE, limit: int = 100) -> list[str]:
    return await store.delete_dead_hosts(older_than_seconds=older_than_seconds, limit=limit)


async def known(store) -> list[str]:
    return sorted(host.host_id for host in await store.list_hosts())


async def test_dead_and_expired_ones_go_when_they_are_old_enough(store, helpers):
    await helpers.alive(store, "lives")
    for host_id in ("dead", "expired"):
        await helpers.alive(store, host_id, ttl_seconds=60 if host_id == "dead" else -1)
    await store.declare_host_dead("dead")
    assert await forget(store, older_than_seconds=DAY) == []
    assert await forget(store) == ["dead", "expired"]
    assert await known(store) == ["lives"]
    assert await forget(store) == []
    # One that wakes up after all is told to begin anew.
    assert await store.renew_host("expired", ttl_seconds=60, state=HostState.ACTIVE) is None


async def test_a_batch_is_bounded_and_takes_the_oldest(store, helpers):
    for number in range(3):
        await helpers.alive(store, f"h{number}", ttl_seconds=-1 - number)
    assert await forget(store, limit=2) == ["h1", "h2"]
    assert await forget(store, limit=2) == ["h0"]


async def test_a_lease_of_what_owes_nothing_is_given_up_and_its_epoch_stays(owner, helpers):
    store = owner.store
    await store.declare_host_dead("h1")
    assert await forget(store, older_than_seconds=DAY) == []
    assert await store.find_held("h1", [owner.ref]) == {owner.ref}
    assert await forget(store) == ["h1"]
    assert await store.find_held("h1", [owner.ref]) == set()
    turn = await owner.accept()
    late = StartRun(new_id(), (turn.turn_id,), 1, None, None)
    assert await store.start_run(owner.lease, late) is None, "it is fenced"
    await helpers.alive(store, "h2")
    taken = await store.activate(owner.ref, "h2")
    assert isinstance(taken, Activation)
    assert taken.lease.epoch == owner.lease.epoch + 1


async def test_what_is_owed_keeps_its_last_holder(owner, helpers):
    store = owner.store
    turn = await owner.accept()
    await store.declare_host_dead("h1")
    assert await forget(store) == []
    assert await store.find_held("h1", [owner.ref]) == {owner.ref}
    await helpers.alive(store, "h2")
    taken = await store.activate(owner.ref, "h2")
    assert [owed.turn_id for owed in (await store.load_owed(taken.lease, limit=10))] == [turn.turn_id]
    assert await forget(store) == ["h1"]


async def test_a_turn_that_ran_there_keeps_it_until_a_successor_has_written(owner, helpers):
    """The lease is the successor's already, and the marker still names the host before."""
    store = owner.store
    await owner.start(await owner.accept())
    await store.declare_host_dead("h1")
    await helpers.alive(store, "h2")
    taken = await store.activate(owner.ref, "h2")
    assert await forget(store) == []
    assert await known(store) == ["h1", "h2"]
    assert taken.lease.host_id == "h2"


async def test_a_singleton_that_nobody_wants_any_more_keeps_nobody(store, helpers, make_scene):
    await make_scene(store)
    await helpers.alive(store, "h1")
    name = SingletonName("acme", "poller", "telegram:1")
    assert await store.acquire_singleton(name, "h1") is not None
    await store.declare_host_dead("h1")
    assert await forget(store) == ["h1"]
    await helpers.alive(store, "h2")
    again = await store.acquire_singleton(name, "h2")
    assert again is not None
    assert again.epoch == 2


async def test_leases_are_given_up_in_batches(owner, helpers, make_scene):
    store = owner.store
    for _ in range(2):
        await store.activate((await make_scene(store)).ref, "h1")
    await store.declare_host_dead("h1")
    found = [await forget(store, limit=1) for _ in range(3)]
    assert found == [[], [], ["h1"]]

"""Membership, the sweep and the totals: the same on both stores."""

from datetime import datetime

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState
from lobu_actors.store.records import Owed, Totals


async def test_a_host_lives_until_it_is_declared_dead(store, helpers):
    assert not await store.renew_host("h1", ttl_seconds=10, state=HostState.ACTIVE)
    await helpers.alive(store, "h1", ttl_seconds=0)
    # Expired is not dead: nobody has said so.
    assert await store.renew_host("h1", ttl_seconds=10, state=HostState.DRAINING)
    [host] = await store.list_hosts()
    assert (host.host_id, host.state, host.version) == ("h1", HostState.DRAINING, "1")
    assert 5 < host.expires_in_seconds <= 10
    await store.declare_host_dead("h1")
    await store.declare_host_dead("nobody")
    assert not await store.renew_host("h1", ttl_seconds=10, state=HostState.ACTIVE)
    await helpers.alive(store, "h1")
    [host] = await store.list_hosts()
    assert host.state is HostState.DEAD
    assert host.expires_in_seconds <= 0


async def test_hosts_are_listed_with_their_leases(owner, helpers):
    await helpers.alive(owner.store, "h2", ttl_seconds=100)
    assert [(host.host_id, host.leases) for host in await owner.store.list_hosts()] == [("h2", 0), ("h1", 1)]


async def test_the_sweep_finds_what_nobody_else_is_responsible_for(owner, helpers, make_scene):
    store = owner.store
    await helpers.alive(store, "h2")

    async def sweep(host_id: str) -> list[ConversationRef]:
        return [owed.ref for owed in await store.find_owed(host_id, limit=10, older_than_seconds=0)]

    free = (await make_scene(store)).ref
    assert await sweep("h2") == []
    await owner.accept()
    await store.accept_turn(helpers.new_turn(free), max_owed=10)
    await store.accept_turn(helpers.new_turn(free), max_owed=10)
    assert await sweep("h2") == [free]
    # Our own comes after what nobody holds, though it is older.
    assert await sweep("h1") == [free, owner.ref]
    assert await store.find_owed("h1", limit=1, older_than_seconds=0) == [Owed(free, closing=False)]
    assert await store.find_owed("h1", limit=10, older_than_seconds=60) == []
    await store.declare_host_dead("h1")
    assert await sweep("h2") == [owner.ref, free]


async def test_a_lost_hint_comes_before_what_is_running(owner, make_scene, helpers):
    store = owner.store
    turn = await owner.accept()
    await owner.start(turn)
    idle = (await make_scene(store)).ref
    await store.activate(idle, "h1")
    await store.accept_turn(helpers.new_turn(idle), max_owed=10)
    assert await store.find_owed("h1", limit=10, older_than_seconds=0) == [
        Owed(idle, closing=False),
        Owed(owner.ref, closing=False),
    ]


async def test_the_sweep_finds_conversations_to_close(owner, helpers):
    store = owner.store
    await helpers.alive(store, "h2")
    await store.mark_closing(owner.ref)
    assert await store.find_owed("h1", limit=10, older_than_seconds=0) == [Owed(owner.ref, closing=True)]
    assert await store.find_owed("h2", limit=10, older_than_seconds=0) == []
    await store.release(owner.lease)
    assert await store.find_owed("h2", limit=10, older_than_seconds=0) == [Owed(owner.ref, closing=True)]
    taken = await store.activate(owner.ref, "h2")
    await store.close_conversation(taken.lease, "deleted")
    assert await store.find_owed("h2", limit=10, older_than_seconds=0) == []


async def test_totals(owner, helpers, make_scene):
    store = owner.store
    assert await store.totals() == Totals(conversations=1, queued=0, running=0, oldest_owed_seconds=None)
    first, _ = await owner.accept(), await owner.accept()
    await owner.start(first)
    other = (await make_scene(store, "other")).ref
    await store.accept_turn(helpers.new_turn(other), max_owed=10)
    total = await store.totals()
    assert (total.conversations, total.queued, total.running) == (2, 2, 1)
    assert 0 <= total.oldest_owed_seconds < 60
    assert (await store.totals("other")).queued == 1
    assert (await store.totals("nobody")).conversations == 0


async def test_the_clock(store):
    now = await store.now()
    assert isinstance(now, datetime)
    assert now.utcoffset() is not None

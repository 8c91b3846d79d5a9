"""Membership, the sweep and the totals: the same on both stores."""

from datetime import datetime

import pytest
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, HostState
from lobu_actors.store.link_records import Links, PeerLink
from lobu_actors.store.membership_protocol import HostLoad
from lobu_actors.store.records import Activation, HeldElsewhere, Owed, Totals


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


async def test_who_was_asked_to_drain_learns_it_and_stays_so(store, helpers):
    assert not await store.drain_host("h1")
    await helpers.alive(store, "h1")
    assert await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE) is HostState.ACTIVE
    assert await store.drain_host("h1")
    for _ in range(2):
        assert await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE) is HostState.DRAINING
    assert await store.drain_host("h1"), "again is no error"
    await helpers.alive(store, "h2", ttl_seconds=0)
    assert not await store.drain_host("h2"), "it has expired"
    await store.declare_host_dead("h1")
    assert not await store.drain_host("h1")
    assert [host.state for host in await store.list_hosts() if host.host_id == "h1"] == [HostState.DEAD]


async def test_what_a_host_says_of_its_links_is_listed(store, helpers):
    await helpers.alive(store, "h1")
    assert (await store.list_hosts())[0].links == Links()
    links = Links(2, 1, (PeerLink("h4", up=False, lag_seconds=None), PeerLink("h2", up=True, lag_seconds=0.0025)))
    await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE, links=links)
    assert (await store.list_hosts())[0].links == links
    await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE)
    assert (await store.list_hosts())[0].links == Links()


async def test_loads_are_those_of_the_last_renewal_of_live_hosts(store, helpers):
    for name in ("h1", "h2", "h3"):
        await helpers.alive(store, name)
    await store.renew_host("h1", ttl_seconds=60, state=HostState.DRAINING, runs=7)
    await store.renew_host("h2", ttl_seconds=0, state=HostState.ACTIVE, runs=8)
    assert await store.find_loads() == [HostLoad("h1", HostState.DRAINING, 7), HostLoad("h3", HostState.ACTIVE, 0)]
    await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE, runs=8, room=3)
    assert (await store.find_loads())[0] == HostLoad("h1", HostState.DRAINING, 8, room=3)
    await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE, runs=8)
    assert (await store.find_loads())[0].room is None


@pytest.mark.parametrize(("first", "second"), [(None, "not_allowed"), ("file_sessions", None), ("not_allowed",) * 2])
async def test_where_one_tolerates_no_other_the_two_are_rivals(store, first, second):
    async def register(name, alone):
        alone = None if alone is None else Alone(alone)
        await store.register_host(name, name=f"{name}.net", link_url=None, version="1", ttl_seconds=60, alone=alone)

    await register("h1", first)
    assert await store.find_rivals("h1") == []
    await register("h2", second)
    for me, other, alone in (("h2", "h1", first), ("h1", "h2", second)):
        [rival] = await store.find_rivals(me)
        assert (rival.host_id, rival.name, rival.alone) == (other, f"{other}.net", alone)
        assert 0 <= rival.age_seconds < 50 < rival.expires_in_seconds <= 60
    assert await store.find_rivals("h3") == [], "it is not registered"
    await store.declare_host_dead("h1")
    assert await store.find_rivals("h2") == []


async def test_hosts_that_may_be_several_are_no_rivals(store, helpers):
    for name in ("h1", "h2", "h3"):
        await helpers.alive(store, name)
    assert await store.find_rivals("h2") == []


@pytest.mark.parametrize(("first", "second"), [(None, "not_allowed"), ("not_allowed", None), (None, None)])
async def test_an_expired_host_refuses_nobody_and_does_not_come_back_beside_one(store, first, second):
    for name, alone, seconds in (("h1", first, 0), ("h2", second, 60)):
        alone = None if alone is None else Alone(alone)
        await store.register_host(name, name=name, link_url=None, version="1", ttl_seconds=seconds, alone=alone)
    assert await store.find_rivals("h2") == []
    renewed = await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE)
    assert renewed is (HostState.ACTIVE if (first, second) == (None, None) else None)


async def test_hosts_are_listed_with_what_they_hold(owner, helpers, make_scene):
    store = owner.store
    await helpers.alive(store, "h2", ttl_seconds=100)
    await owner.start(await owner.accept())
    await owner.accept()
    await owner.accept()
    await store.activate(owner.ref, "h1")
    free = (await make_scene(store)).ref
    await store.accept_turn(helpers.new_turn(free), max_owed=10)
    listed = [(host.host_id, host.leases, host.epochs, host.queued, host.running) for host in await store.list_hosts()]
    assert listed == [("h2", 0, 0, 0, 0), ("h1", 1, 2, 2, 1)]
    assert all(0 <= host.age_seconds < 60 for host in await store.list_hosts())


async def test_the_newest_hosts_are_listed_without_counting(owner, helpers):
    store = owner.store
    await helpers.alive(store, "h2", ttl_seconds=100)
    await owner.start(await owner.accept())
    [first] = await store.list_newest_hosts(limit=1)
    assert (first.host_id, first.name, first.state) == ("h2", "h2", HostState.ACTIVE)
    assert 60 < first.expires_in_seconds <= 100
    assert 0 <= first.age_seconds < 60
    both = await store.list_newest_hosts(limit=10)
    assert [(host.host_id, host.leases, host.epochs, host.queued, host.running) for host in both] == [
        ("h2", 0, 0, 0, 0), ("h1", 0, 0, 0, 0),
    ]  # fmt: skip


async def test_what_is_owed_is_counted_of_one_organization_or_of_all(owner, helpers, make_scene):
    store = owner.store
    first, _ = await owner.accept(), await owner.accept()
    await owner.start(first)
    other = (await make_scene(store, "other")).ref
    await store.accept_turn(helpers.new_turn(other), max_owed=10)
    counted = [await store.count_owed(name) for name in (None, owner.ref.organization_id, "other", "nobody")]
    assert [(one.queued, one.running) for one in counted] == [(2, 1), (1, 1), (1, 0), (0, 0)]
    assert all(0 <= one.oldest_seconds < 60 for one in counted)
    assert counted[-1].oldest_seconds == 0


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


async def test_who_missed_renewals_gives_others_that_missed_them_too_time_to_come_back(owner, helpers):
    """As behind an outage of the database: the first that comes back finds all others expired."""
    store, ref = owner.store, owner.ref
    await store.register_host("h2", name="h2", link_url=None, version="1", ttl_seconds=60, renew_seconds=59.9)
    assert await store.activate(ref, "h2") == HeldElsewhere("h1")
    await store.renew_host("h1", ttl_seconds=-1, state=HostState.ACTIVE)
    await trio.sleep(0.12)  # h2 has not expired, and has missed a renewal
    assert await store.activate(ref, "h2") == HeldElsewhere("h1")
    await store.renew_host("h2", ttl_seconds=60, renew_seconds=20, state=HostState.ACTIVE)
    assert await store.activate(ref, "h2") == HeldElsewhere("h1"), "h1 may be about to renew"
    await store.declare_host_dead("h1")
    assert isinstance(await store.activate(ref, "h2"), Activation), "it is known to be gone"


async def test_who_comes_right_behind_an_outage_gives_all_others_time_to_come_back_too(owner, helpers):
    store, ref = owner.store, owner.ref
    await store.renew_host("h1", ttl_seconds=-1, state=HostState.ACTIVE)
    await store.register_host("h2", name="h2", link_url=None, version="1", ttl_seconds=60, renew_seconds=20)
    assert await store.activate(ref, "h2") == HeldElsewhere("h1"), "nobody was there all the while who could tell"
    await store.register_host("h3", name="h3", link_url=None, version="1", ttl_seconds=60, renew_seconds=20)
    assert await store.activate(ref, "h3") == HeldElsewhere("h1"), "nor does one such host prove it to the next"
    await store.declare_host_dead("h1")
    assert isinstance(await store.activate(ref, "h2"), Activation), "it is known to be gone"


async def test_who_comes_where_others_have_renewed_all_the_while_judges_at_once(owner, helpers):
    store, ref = owner.store, owner.ref
    await helpers.alive(store, "h2")
    await store.renew_host("h1", ttl_seconds=-1, state=HostState.ACTIVE)
    await helpers.alive(store, "h3")
    assert isinstance(await store.activate(ref, "h3"), Activation)


async def test_who_came_behind_an_outage_judges_when_a_lease_is_over(owner, helpers):
    store, ref = owner.store, owner.ref
    await store.renew_host("h1", ttl_seconds=-1, state=HostState.ACTIVE)
    await store.register_host("h2", name="h2", link_url=None, version="1", ttl_seconds=2)
    await store.renew_host("h2", ttl_seconds=60, state=HostState.ACTIVE)
    assert await store.activate(ref, "h2") == HeldElsewhere("h1")
    await trio.sleep(2.01)  # by the database's clock, as hosts judge each other
    assert isinstance(await store.activate(ref, "h2"), Activation)


async def test_who_missed_nothing_takes_over_from_an_expired_host_at_once(owner, helpers):
    store = owner.store
    await store.register_host("h2", name="h2", link_url=None, version="1", ttl_seconds=60, renew_seconds=20)
    await store.renew_host("h2", ttl_seconds=60, renew_seconds=20, state=HostState.ACTIVE)
    await store.renew_host("h1", ttl_seconds=-1, state=HostState.ACTIVE)
    assert isinstance(await store.activate(owner.ref, "h2"), Activation)

"""One host at a time is restarted: the same on both stores."""

from __future__ import annotations

from lobu_actors.store.rollout_protocol import Rollout


async def test_one_rollout_at_a_time_and_the_next_when_the_host_is_back(store, helpers):
    assert await store.find_rollout() is None
    await helpers.alive(store, "a1")
    await helpers.alive(store, "b1")
    assert await store.begin_rollout("r1", "a1", name="a", ttl_seconds=60)
    assert await store.find_rollout() == Rollout("a", under_way=True, is_back=True)
    assert not await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60), "one is under way"
    assert not await store.begin_rollout("r2", "a1", name="a", ttl_seconds=60), "for the same host, too"
    assert await store.renew_rollout("r1", ttl_seconds=60)
    assert not await store.end_rollout("r1"), "it was not restarted yet"
    await store.declare_host_dead("a1")
    assert not await store.end_rollout("r1")
    await helpers.alive(store, "a2")
    assert not await store.end_rollout("r1"), "another host that starts is not this one"
    await store.follow_rollout("a1", "a2")
    assert await store.end_rollout("r1")
    assert not await store.end_rollout("r1")
    assert not await store.renew_rollout("r1", ttl_seconds=60)
    assert await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60)
    assert not await store.renew_rollout("r1", ttl_seconds=60)


async def test_who_stopped_in_the_middle_is_waited_for_until_its_host_is_back(store, helpers):
    await helpers.alive(store, "a1")
    await helpers.alive(store, "b1")
    assert await store.begin_rollout("r1", "a1", name="a", ttl_seconds=60)
    await store.declare_host_dead("a1")
    await store.give_rollout_up("r1")
    assert await store.find_rollout() == Rollout("a", under_way=False, is_back=False)
    assert not await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60)
    assert not await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60, without="c")
    await helpers.alive(store, "a2")
    await store.follow_rollout("nobody", "a2")
    assert not await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60)
    await store.follow_rollout("a1", "a2")
    assert await store.find_rollout() == Rollout("a", under_way=False, is_back=True)
    assert await store.begin_rollout("r2", "b1", name="b", ttl_seconds=60)


async def test_a_host_that_is_down_may_be_tried_again_or_left_out(store, helpers):
    await helpers.alive(store, "b1")
    assert await store.begin_rollout("r1", "a1", name="a", ttl_seconds=0)
    assert not await store.begin_rollout("r2", "b1", name="b", ttl_seconds=0)
    assert await store.begin_rollout("r3", "a1", name="a", ttl_seconds=0)
    assert await store.begin_rollout("r4", "b1", name="b", ttl_seconds=0, without="a")


async def test_none_begins_while_another_host_drains(store, helpers):
    await helpers.alive(store, "a1")
    await helpers.alive(store, "b1")
    await store.drain_host("a1")
    assert not await store.begin_rollout("r1", "b1", name="b", ttl_seconds=60)
    assert await store.begin_rollout("r1", "a1", name="a", ttl_seconds=60), "it drains itself"

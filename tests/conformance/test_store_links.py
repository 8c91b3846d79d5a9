"""How hosts find each other, and what they tell each other through the store: the same on both stores."""

import pytest
import trio

from lobu_actors.contract.states import HostState
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_protocol import Peer


async def test_peers_are_the_other_hosts_that_live(store, helpers):
    await store.register_host("h1", name="h1", link_url="ws://one:1/", version="1", ttl_seconds=60)
    await helpers.alive(store, "h2")
    await helpers.alive(store, "expired", ttl_seconds=0)
    await helpers.alive(store, "dead")
    await store.declare_host_dead("dead")
    assert await store.find_peers("h2") == [Peer("h1", "ws://one:1/")]
    assert await store.find_peers("h1") == [Peer("h2", None)]


async def test_the_owner_is_the_live_host_with_the_lease(owner, make_scene):
    store = owner.store
    assert await store.find_owner(owner.ref) == "h1"
    assert await store.find_owner((await make_scene(store, "rival")).ref) is None
    await store.release(owner.lease)
    assert await store.find_owner(owner.ref) is None
    await store.activate(owner.ref, "h1")
    await store.declare_host_dead("h1")
    assert await store.find_owner(owner.ref) is None


async def test_notices_come_to_the_host_that_they_are_for_in_order(store):
    await store.notify("h1", "nobody listens")
    with trio.fail_after(20):
        async with store.listening("h1") as notices, store.listening("h2") as others:
            await store.notify("h1", "one")
            await store.notify("h2", "x" * 7999)
            await store.notify("h1", "two")
            heard = await notices.receive()
            while len(heard) < 2:
                heard += await notices.receive()
            assert heard == ["one", "two"]
            assert await others.receive() == ["x" * 7999]


async def test_a_listener_is_told_when_it_may_have_missed_something(store_url, store):
    if store_url is None:
        pytest.skip("memory breaks no connection")
    with trio.fail_after(20):
        async with store.listening("h1") as notices:
            async with store.pool.connection() as other:
                await other.fetch(
                    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    b"WHERE datname = current_database() AND query LIKE 'LISTEN%'",
                    None,
                    timeout_seconds=5,
                    write=False,
                )
            with pytest.raises(StoreUnavailable):
                await notices.receive()


async def test_only_a_host_that_does_not_listen_is_declared_dead(store, helpers):
    await helpers.alive(store, "h1")
    with trio.fail_after(20):
        async with store.listening("h1"):
            assert await store.declare_dead_if_gone("h1") is False
            assert await store.renew_host("h1", ttl_seconds=60, state=HostState.ACTIVE) is not None
        await helpers.alive(store, "h2")
        assert await store.declare_dead_if_gone("h2") is True
        assert await store.declare_dead_if_gone("h2") is False, "it was dead by then"
    assert await store.renew_host("h2", ttl_seconds=60, state=HostState.ACTIVE) is None
    assert await store.declare_dead_if_gone("nobody") is False

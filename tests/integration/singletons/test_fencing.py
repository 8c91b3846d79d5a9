"""A takeover waits for its predecessor's write that is under way: what the successor then reads is all there will be.

Each statement is held up by a row that a third session has locked, behind its look at the lease.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import psycopg
import pytest
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import DeliveryStatus
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.singleton_records import NewDelivery, SingletonLease, SingletonName
from tests.integration.singletons.conftest import until

NAME = SingletonName("acme", "poller", "telegram:1")
AT = datetime(2030, 1, 1, tzinfo=UTC)
LOCK_WATCHER = "SELECT 1 FROM watcher_state FOR UPDATE"
LOCK_DELIVERY = "SELECT 1 FROM platform_delivery FOR UPDATE"

Write = Callable[[PostgresStore, SingletonLease], Awaitable[object]]
WRITES: dict[str, tuple[str, Write]] = {
    "begin_watchers": (LOCK_WATCHER, lambda store, lease: store.begin_watchers(lease, {"w": "other"})),
    "claim_firing": (LOCK_WATCHER, lambda store, lease: store.claim_firing(lease, "w", AT)),
    "confirm_firing": (
        "UPDATE watcher_state SET pending_for = '2030-01-01 00:00Z'",
        lambda store, lease: store.confirm_firing(lease, "w", AT),
    ),
    "owe_delivery": (LOCK_DELIVERY, lambda store, lease: store.owe_delivery(lease, debt("m", "notice"))),
    "record_delivery": (
        LOCK_DELIVERY,
        lambda store, lease: store.record_delivery(lease, "m", DeliveryStatus.OWED, parts_sent=1, error=None),
    ),
    "forget_deliveries": (
        LOCK_DELIVERY,
        lambda store, lease: store.forget_deliveries(lease, older_than_seconds=-1, limit=1),
    ),
}


def debt(message_id: str, notice: str | None = None) -> NewDelivery:
    return NewDelivery(message_id, ConversationRef("acme", "agent", "one"), message_id, {}, notice)


def waiting(looking: psycopg.Connection) -> int:
    """How many sessions of this database stand before a lock."""
    asked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return len(looking.execute(asked).fetchall())


async def host(store: PostgresStore, host_id: str) -> str:
    await store.register_host(host_id, name=host_id, link_url=None, version="1", ttl_seconds=600)
    return host_id


@pytest.mark.parametrize("name", WRITES)
async def test_a_takeover_waits_for_a_write_that_is_under_way(
    store: PostgresStore, database_url: str, name: str
) -> None:
    lock, write = WRITES[name]
    lease = await store.acquire_singleton(NAME, await host(store, "h1"))
    assert lease is not None
    assert await store.begin_watchers(lease, {"w": "s"})
    assert await store.owe_delivery(lease, debt("m"))
    if name == "confirm_firing":
        assert await store.claim_firing(lease, "w", AT)
    await store.declare_host_dead("h1")
    await host(store, "h2")
    done: list[str] = []

    async def predecessor() -> None:
        assert await write(store, lease)
        done.append("write")

    async def successor() -> None:
        assert await store.acquire_singleton(NAME, "h2") is not None
        done.append("takeover")

    with psycopg.connect(database_url) as third, psycopg.connect(database_url, autocommit=True) as looking:
        third.execute(lock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(predecessor)
            await until(lambda: waiting(looking) == 1, "it has looked at the lease, and waits for the row")
            nursery.start_soon(successor)
            await until(lambda: waiting(looking) == 2, "the takeover waits for it")
            assert done == []
            third.rollback()
    assert sorted(done) == ["takeover", "write"]
    assert not await store.is_singleton_held(lease)

"""A host keeps its place in the cluster whatever its requests and turns wait for."""

from __future__ import annotations

import psycopg
import trio

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.postgres import PostgresStore
from supervisor.membership import Membership

POOL, TTL_SECONDS, RENEW_SECONDS, MARGIN_SECONDS, RENEWALS = 2, 20.0, 0.5, 0.5, 6


async def test_a_host_whose_connections_all_wait_renews_its_lease(database_url, make_scene, tmp_path):
    """For a table that somebody keeps locked, say: a migration behind a long transaction."""
    store = PostgresStore.connect(database_url, pool_size=POOL)
    ref = (await make_scene(store)).ref
    membership = Membership(
        store, tmp_path, ttl_seconds=TTL_SECONDS, renew_seconds=RENEW_SECONDS, margin_seconds=MARGIN_SECONDS
    )
    found: list[object] = []

    async def find() -> None:
        found.append(await store.find_conversation(ref.organization_id, ref.conversation_id))

    with psycopg.connect(database_url) as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(membership.run, ChildContext("membership"))
            await membership.renewed()
            session.execute("LOCK TABLE conversation IN ACCESS EXCLUSIVE MODE")
            for _ in range(3 * POOL):
                nursery.start_soon(find)
            for _ in range(RENEWALS):
                with trio.move_on_at(membership.trusted_until) as scope:
                    await membership.renewed()
                assert not scope.cancelled_caught, "its workers are frozen, and others take over"
            assert found == []
            session.rollback()
            with trio.fail_after(30):
                while len(found) < 3 * POOL:
                    await membership.renewed()
            nursery.cancel_scope.cancel()
    store.close()

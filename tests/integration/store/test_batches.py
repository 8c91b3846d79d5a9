"""Conversations that share a statement, on a real server: what one of them meets holds the others up once."""

from __future__ import annotations

import psycopg
import pytest
import trio

from lobu_actors.contract.ids import new_id
from lobu_actors.conversation.commit import Patience, until_known
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Accepted, Activation, NewTurn, StartRun

CALL_SECONDS = 4.0


@pytest.fixture
async def store(database_url):
    store = PostgresStore.connect(database_url, call_timeout_seconds=CALL_SECONDS)
    yield store
    store.close()


@pytest.fixture
async def leases(store, make_scene):
    """Of three conversations that the same host has."""
    first = (await make_scene(store)).ref
    await store.register_host("h1", name="h1", link_url=None, version="1", ttl_seconds=600)
    found = []
    for name in ("first", "locked", "other"):
        ref = first._replace(conversation_id=name)
        await store.open_conversation(ref, "ann")
        activation = await store.activate(ref, "h1")
        assert isinstance(activation, Activation)
        found.append(activation.lease)
    return found


async def start(store, lease):
    """As an actor does: a turn of its own, asked again until it has begun."""
    accepted = await store.accept_turn(NewTurn(lease.ref, new_id(), new_id(), "hello"), max_owed=9)
    assert isinstance(accepted, Accepted)
    run = StartRun(new_id(), (accepted.turn.turn_id,), 1, None, None)
    return await until_known("start_run", lambda: store.start_run(lease, run), Patience(60))


async def test_a_row_that_somebody_keeps_locked(store, database_url, leases):
    first, locked, other = leases
    done: dict[str, trio.Event] = {lease.ref.conversation_id: trio.Event() for lease in leases}

    async def run(lease) -> None:
        assert await start(store, lease) == []
        done[lease.ref.conversation_id].set()

    with psycopg.connect(database_url) as session:
        session.execute("SELECT FROM actor_lease WHERE key = 'locked' FOR UPDATE")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for lease in (first, locked, other):
                    nursery.start_soon(run, lease)
                await done["first"].wait()
                await done["other"].wait()
                assert not done["locked"].is_set()
                # From now on neither waits for the other.
                assert await start(store, first) is None, "its run is live"
                session.rollback()
        assert done["locked"].is_set()

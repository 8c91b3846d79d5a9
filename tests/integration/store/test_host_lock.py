"""The lock that says that a host lives, where the server has not noticed yet that its last session is over."""

from __future__ import annotations

import psycopg
import pytest
import trio

from lobu_actors.store.postgres import PostgresStore, links
from tests.fakes.linked_host import until

LOCK = "SELECT pg_advisory_lock(hashtextextended('h1', 0))"


async def test_a_listener_takes_the_lock_as_soon_as_nobody_else_has_it(
    store: PostgresStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a cut line, whose half-open session the server keeps for a while."""
    monkeypatch.setattr(links, "LOCK_AGAIN_SECONDS", 0.05)
    await store.register_host("h1", name="h1", link_url=None, version="1", ttl_seconds=60)
    with psycopg.connect(database_url, autocommit=True) as former:
        former.execute(LOCK)
        gone = former.info.backend_pid
        async with store.listening("h1") as notices, trio.open_nursery() as nursery:
            nursery.start_soon(notices.receive)
            former.close()
            with psycopg.connect(database_url, autocommit=True) as other:
                await until(lambda: _is_held(other, gone))
            assert await store.declare_dead_if_gone("h1") is False
            nursery.cancel_scope.cancel()


def _is_held(session: psycopg.Connection, gone: int) -> bool:
    """By somebody else than that process, which the server may still wait for."""
    held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> %s"
    return bool(session.execute(held, (gone,)).fetchall())

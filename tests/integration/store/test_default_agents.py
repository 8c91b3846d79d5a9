"""One default agent an organization: what an older schema left, and hosts that start at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from lobu_actors.store import migrate as module
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.migrate import known_migrations, migrate
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Agent
from tests.conftest import admin

ROUNDS = 20
HOSTS = 4
DEFAULTS = "SELECT organization_id, agent_id FROM agent WHERE is_default ORDER BY organization_id, agent_id"


@asynccontextmanager
async def hosts(database_url: str) -> AsyncIterator[list[PostgresStore]]:
    """Stores of several processes, none of which has a connection yet."""
    stores = [PostgresStore.connect(database_url) for _ in range(HOSTS)]
    yield stores
    for store in stores:
        store.close()


async def start(store: PostgresStore, organization_id: str, agent_id: str) -> None:
    """What a start does with its lobu.toml's agents."""
    await store.ensure_organization(organization_id)
    agents = [
        Agent(organization_id, agent_id, "echo", is_default=True),
        Agent(organization_id, f"beside-{agent_id}", "echo"),
    ]
    await store.apply_agents(organization_id, agents)
    await store.ensure_default_agents(agents[0])


@pytest.mark.parametrize("names", [["echo"] * HOSTS, ["d", "b", "c", "a"]], ids=["the same file", "different files"])
async def test_hosts_that_start_at_once_make_one(database_url: str, names: list[str]) -> None:
    for number in range(ROUNDS):
        organization = f"acme{number:02}"
        admin(database_url, f"INSERT INTO organization VALUES ('hand{number:02}a'), ('hand{number:02}b')")
        async with hosts(database_url) as stores, trio.open_nursery() as nursery:
            for store, name in zip(stores, names, strict=True):
                nursery.start_soon(start, store, organization, name)
    found = admin(database_url, DEFAULTS)
    expected = [f"acme{n:02}" for n in range(ROUNDS)] + [f"hand{n:02}{x}" for n in range(ROUNDS) for x in "ab"]
    assert [organization for organization, _ in found] == expected
    enabled = admin(database_url, "SELECT organization_id, count(*) FROM agent WHERE NOT disabled GROUP BY 1")
    # The last to apply has disabled the others' agents.
    assert all(count == (2 if str(organization).startswith("acme") else 1) for organization, count in enabled)


async def test_a_start_that_cannot_have_its_turn_says_so(
    store: PostgresStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one holds the lock and does not go on: the wait is bounded, and nothing is written."""
    monkeypatch.setattr("lobu_actors.store.postgres.tenants.AGENTS_SECONDS", 0.3)
    await store.ensure_organization("acme")
    async with store.pool.connection() as other:
        for statement in (b"BEGIN", b"SELECT pg_advisory_xact_lock(hashtextextended('lobu agent', 0))"):
            await other.fetch(statement, None, timeout_seconds=5, write=False)
        with trio.fail_after(10), pytest.raises(StoreUnavailable):
            await start(store, "acme", "echo")
    assert await store.list_agents("acme") == []
    monkeypatch.undo()  # the server may be slow to notice that the other one is gone
    await start(store, "acme", "echo")
    assert await store.find_agent("acme", None) is not None


async def test_several_defaults_of_an_older_version_become_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = next(one.version for one in known_migrations() if one.name.endswith("_one_default_agent"))
    older = [one for one in known_migrations() if one.version < version]
    admin(database_url, "DROP SCHEMA public CASCADE")
    admin(database_url, "CREATE SCHEMA public")
    with monkeypatch.context() as patch:
        patch.setattr(module, "known_migrations", lambda: older)
        await migrate(database_url)
    admin(database_url, "INSERT INTO organization VALUES ('several'), ('disabled'), ('owned'), ('none'), ('good')")
    admin(
        database_url,
        """
        INSERT INTO agent (organization_id, agent_id, worker, is_default, disabled, owner_user_id) VALUES
            ('several', 'a', 'echo', true, true, NULL), ('several', 'b', 'echo', true, false, 'ann'),
            ('several', 'c', 'echo', true, false, NULL), ('several', 'd', 'echo', true, false, NULL),
            ('disabled', 'a', 'echo', true, true, NULL), ('owned', 'a', 'echo', true, false, 'ann'),
            ('none', 'a', 'echo', false, false, NULL), ('good', 'a', 'echo', true, false, NULL)
        """,
    )
    await migrate(database_url)
    assert admin(database_url, DEFAULTS) == [("good", "a"), ("several", "c")]
    store = PostgresStore.connect(database_url)
    given = await store.ensure_default_agents(Agent("x", "echo", "echo", is_default=True))
    assert given == ["disabled", "none", "owned"]
    store.close()
    names = ["disabled", "good", "none", "owned", "several"]
    assert admin(database_url, DEFAULTS) == list(zip(names, ["echo", "a", "echo", "echo", "c"], strict=True))


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO agent (organization_id, agent_id, worker, is_default) VALUES ('acme', 'z', 'echo', true)",
        "UPDATE agent SET is_default = true WHERE agent_id = 'beside-echo'",
        "UPDATE agent SET disabled = true WHERE is_default",
        "UPDATE agent SET owner_user_id = 'ann' WHERE is_default",
    ],
)
async def test_the_schema_itself_allows_no_second_one(store: PostgresStore, database_url: str, change: str) -> None:
    await start(store, "acme", "echo")
    with pytest.raises(Exception, match=r"agent_one_default|agent_default_is_everybodys"):
        admin(database_url, change)

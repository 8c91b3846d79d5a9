"""Migrations on a real server."""

import hashlib

import pytest
import trio
from msgspec.structs import replace

from lobu_actors.store import migrate as module
from lobu_actors.store.driver import open_connection
from lobu_actors.store.errors import SchemaMismatch, StoreRejected
from lobu_actors.store.migrate import Migration, known_migrations, migrate, pending
from lobu_actors.store.postgres import PostgresStore

NAMES = [migration.name for migration in known_migrations()]


@pytest.fixture
async def empty_url(database_url):
    """The same database without its schema."""
    await run(database_url, b"DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_url


async def run(url, statement):
    connection = await open_connection(url, timeout_seconds=10)
    try:
        return await connection.fetch(statement, None, timeout_seconds=30, write=True)
    finally:
        connection.close_now()


async def test_a_new_database_gets_everything_once(empty_url):
    assert await pending(empty_url) == NAMES
    store = PostgresStore.connect(empty_url)
    with pytest.raises(SchemaMismatch, match="lobu migrate"):
        await store.check_schema()
    assert await migrate(empty_url) == NAMES
    assert await migrate(empty_url) == []
    assert await pending(empty_url) == []
    await store.check_schema()
    assert await store.list_hosts() == []
    assert (await store.totals()).conversations == 0
    store.close()


async def test_two_at_once_do_not_collide(empty_url):
    done = []

    async def one() -> None:
        done.extend(await migrate(empty_url))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert sorted(done) == NAMES


async def test_a_newer_database_is_not_touched(database_url):
    await run(database_url, b"INSERT INTO schema_migration (version, name) VALUES (9999, '9999_future')")
    with pytest.raises(SchemaMismatch, match="9999_future"):
        await migrate(database_url)
    with pytest.raises(SchemaMismatch, match="newer program"):
        await pending(database_url)


async def test_the_release_before_runs_on_a_newer_schema_that_says_so(database_url, monkeypatch):
    known = known_migrations()
    after = Migration(len(known) + 1, "later", b"-- oldest: %d\nCREATE TABLE later (x int)" % len(known))
    breaking = Migration(len(known) + 2, "breaking", b"CREATE TABLE breaking (x int)")
    monkeypatch.setattr(module, "known_migrations", lambda: [*known, after])
    assert await migrate(database_url) == ["later"]
    monkeypatch.setattr(module, "known_migrations", lambda: known)
    assert await pending(database_url) == []
    assert await migrate(database_url) == [], "and it takes nothing back"
    monkeypatch.setattr(module, "known_migrations", lambda: known[:-1])
    with pytest.raises(SchemaMismatch, match="migration later, which this program does not know"):
        await pending(database_url)
    monkeypatch.setattr(module, "known_migrations", lambda: [*known, after, breaking])
    assert await migrate(database_url) == ["breaking"]
    monkeypatch.setattr(module, "known_migrations", lambda: [*known, after])
    with pytest.raises(SchemaMismatch, match="migration breaking"):
        await pending(database_url)


def test_each_migration_says_for_whom_it_is_fit():
    """Of those since there is a release before."""
    assert [one.name for one in known_migrations()[15:] if not one.statements.startswith(b"-- oldest: ")] == []


async def test_a_failed_migration_leaves_nothing(database_url, monkeypatch):
    bad = Migration(len(NAMES) + 1, "bad", b"CREATE TABLE half (x int); SELEKT")
    monkeypatch.setattr(module, "known_migrations", lambda: [*known_migrations(), bad])
    with pytest.raises(StoreRejected):
        await migrate(database_url)
    assert await pending(database_url) == ["bad"]
    assert await run(database_url, b"SELECT to_regclass('half') IS NULL") == [(True,)]


async def test_first_statistics_touch_no_data(database_url):
    """Forgotten and applied again on a database that is in use, they change nothing."""
    await run(database_url, b"INSERT INTO organization (organization_id) VALUES ('acme')")
    await run(database_url, b"DELETE FROM schema_migration WHERE version = 2")
    assert await migrate(database_url) == ["0002_first_statistics"]
    assert await run(database_url, b"SELECT organization_id FROM organization") == [("acme",)]


APPLIED = b"SELECT name, sha256 FROM schema_migration ORDER BY version"
SUMS = [(migration.name, hashlib.sha256(migration.statements).hexdigest()) for migration in known_migrations()]


def edit(monkeypatch, version):
    """The program's file of this version is another one from now on."""
    known = known_migrations()
    known[version - 1] = replace(known[version - 1], statements=known[version - 1].statements + b"\n")
    monkeypatch.setattr(module, "known_migrations", lambda: known)


async def test_a_file_that_was_edited_after_it_was_applied_is_noticed(database_url, monkeypatch):
    assert await run(database_url, APPLIED) == SUMS
    await run(database_url, b"DELETE FROM schema_migration WHERE version = 2")
    edit(monkeypatch, 3)
    store = PostgresStore.connect(database_url)
    for check in (migrate(database_url), pending(database_url), store.check_schema()):
        with pytest.raises(SchemaMismatch, match=r"the migration file 0003_sessions\.sql is not the one"):
            await check
    store.close()
    # Nothing was applied on top of it.
    assert await run(database_url, APPLIED) == [one for one in SUMS if one[0] != NAMES[1]]


async def test_a_file_that_is_not_applied_yet_may_be_edited(empty_url, monkeypatch):
    edit(monkeypatch, 3)
    assert await migrate(empty_url) == NAMES
    monkeypatch.undo()
    with pytest.raises(SchemaMismatch, match=r"0003_sessions\.sql"):
        await pending(empty_url)


@pytest.mark.parametrize("without", ["no column", "no value"])
async def test_what_was_applied_before_there_were_checksums_gets_them(database_url, monkeypatch, without):
    if without == "no column":
        await run(database_url, b"ALTER TABLE schema_migration DROP COLUMN sha256")
    else:  # an older program that runs while hosts are replaced one by one
        await run(database_url, b"UPDATE schema_migration SET sha256 = NULL WHERE version IN (2, 4)")
    assert await pending(database_url) == []
    assert await migrate(database_url) == []
    assert await run(database_url, APPLIED) == SUMS
    assert await migrate(database_url) == []
    edit(monkeypatch, 4)
    with pytest.raises(SchemaMismatch, match=r"0004_retention\.sql"):
        await pending(database_url)


async def test_checksums_are_filled_together_with_what_is_pending(database_url):
    await run(database_url, b"DELETE FROM schema_migration WHERE version = 2")
    await run(database_url, b"ALTER TABLE schema_migration DROP COLUMN sha256")
    assert await pending(database_url) == [NAMES[1]]
    assert await migrate(database_url) == [NAMES[1]]
    assert await run(database_url, APPLIED) == SUMS

"""Postgres changes its place: to a standby that is promoted, or to one that only reads for a while."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from lobu_actors.conversation.commit import Patience, until_known
from lobu_actors.store.embedded import EmbeddedServer, find_programs
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.migrate import migrate
from lobu_actors.store.postgres import PostgresStore
from tests.conftest import TEST_SETTINGS, admin, make_folder

PATIENCE = Patience(20)


async def test_a_session_that_only_reads_is_not_kept(database_server, database_url):
    """As managed servers do it when their disk is nearly full, for each new session until it is larger."""
    [(name,)] = admin(database_url, "SELECT current_database()")
    store = PostgresStore.connect(database_url)
    admin(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.ensure_organization("acme")
    admin(database_server.url, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await store.ensure_organization("acme")
    store.close()


@pytest.fixture
async def primary(server_folder: Path):
    server = EmbeddedServer(server_folder, settings=TEST_SETTINGS)
    await server.start()
    yield server
    await server.stop("immediate")


@pytest.fixture
async def standby(primary: EmbeddedServer, server_folder: Path):
    folder = make_folder()
    data = folder / ".lobu" / "pgdata"
    await trio.run_process(
        [str(find_programs() / "pg_basebackup"), "-D", str(data), "-R", "-c", "fast", "-d", primary.url],
        capture_stderr=True,
    )
    owner = (server_folder / ".lobu" / "pgdata").stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)  # who runs these tests may be root, a server is not
    server = EmbeddedServer(folder, settings=TEST_SETTINGS)
    await server.start()
    yield server
    await server.stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


async def test_what_is_written_goes_to_the_server_that_takes_it(primary, standby):
    await migrate(primary.url)
    first, second = (server.url.partition("host=")[2] for server in (standby, primary))
    store = PostgresStore.connect(primary.url.replace(second, f"{first},{second}"))
    with trio.fail_after(60):
        await until_known("ensure_organization", lambda: store.ensure_organization("acme"), PATIENCE)
        await primary.stop("immediate")
        await trio.to_thread.run_sync(admin, standby.url, "SELECT pg_promote()")
        await until_known("ensure_organization", lambda: store.ensure_organization("other"), PATIENCE)
    store.close()

"""How a command that is not `lobu run` gets at the database: an external one, that of a running `lobu run`, or its own.

The embedded server of a folder belongs to one process. While `lobu run` is up it is that one, and commands connect to
its server; else a command starts it and stops it again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import click
import trio

from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from lobu_actors.store.embedded import EmbeddedServer, running_url
from lobu_actors.store.postgres import PostgresStore
from supervisor.config.errors import ConfigError
from supervisor.config.load import Overrides, load_settings
from supervisor.config.settings import Settings
from supervisor.config.values import STATE_FOLDER

STOP_SECONDS = 20.0
POOL_SIZE = 2


def load_for_database(config: Path | None, data_dir: Path | None, database_url: str | None) -> Settings:
    """The settings that the shared options name. Raises ConfigError."""
    return load_settings(config, data_dir=data_dir, overrides=Overrides(database_url=database_url))


@asynccontextmanager
async def open_database(settings: Settings, *, create: bool = False) -> AsyncIterator[str]:
    """A URL that can be connected to. Only with `create` a new embedded database is made.

    Raises ConfigError, EmbeddedServerError.
    """
    database = parse_database_url(settings.database.url, settings.data_dir)
    if not isinstance(database, EmbeddedDatabase):
        yield database.url
        return
    running = running_url(database.path)
    if running is not None:
        yield running
        return
    if not create and not (database.path / STATE_FOLDER / "pgdata").exists():
        raise ConfigError(f"there is no database in {database.path} yet; start `lobu run` there, or run `lobu migrate`")
    server = EmbeddedServer(database.path, on_progress=lambda sentence: click.echo(sentence, err=True))
    try:
        await server.start()
        yield server.url
    finally:
        with trio.move_on_after(STOP_SECONDS, shield=True):
            await server.stop("fast")


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[PostgresStore]:
    """A store on a migrated database. Raises as `open_database`; SchemaMismatch, StoreUnavailable."""
    async with open_database(settings) as url:
        store = PostgresStore.connect(
            url,
            pool_size=POOL_SIZE,
            call_timeout_seconds=settings.limits.database_timeout_seconds,
            application_name="lobu",
        )
        try:
            await store.check_schema()
            yield store
        finally:
            store.close()

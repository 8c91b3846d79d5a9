"""Brings a database's schema to what this program expects. Owns `schema_migration`; the statements are in migrations/.

Forward only and numbered. Each runs in one transaction behind an advisory lock, so two starting hosts do not race and a
failed migration leaves nothing behind. Old programs run on a newer schema during a rolling deploy, but a
program never starts on a schema that it has not heard of.
"""

from __future__ import annotations

import re
from importlib.resources import files

import attrs

from lobu_actors.store.driver import Connection, open_connection
from lobu_actors.store.errors import SchemaMismatch
from lobu_actors.store.queries import query

MIGRATE_SECONDS = 600.0  # for one statement; building an index on a large table takes its time
CONNECT_SECONDS = 10.0
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")


@attrs.frozen
class Migration:
    version: int
    name: str
    statements: bytes


def known_migrations() -> list[Migration]:
    """Those that ship with this program, in order. Raises ValueError when the numbers have a gap."""
    found = []
    for entry in files("lobu_actors.store").joinpath("migrations").iterdir():
        if match := _FILE.match(entry.name):
            found.append(Migration(int(match[1]), entry.name.removesuffix(".sql"), entry.read_bytes()))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations must be numbered from 1 without a gap")
    return found


async def migrate(url: str) -> list[str]:
    """Apply what is pending; gives the names. Raises SchemaMismatch when the database is newer than this program."""
    done: list[str] = []
    connection = await open_connection(url, timeout_seconds=CONNECT_SECONDS, application_name="lobu migrate")
    try:
        while (name := await _migrate_once(connection)) is not None:
            done.append(name)
    finally:
        connection.close_now()
    return done


async def _migrate_once(connection: Connection) -> str | None:
    """The first pending migration, in a transaction; None when there is none. A failure closes the transaction too."""
    await _run(connection, query("begin"))
    await _run(connection, query("lock_migrations"))
    await _run(connection, query("create_schema_migration"))
    missing = _missing(await _applied(connection))
    if missing:
        await _run(connection, missing[0].statements)
        note = {"version": missing[0].version, "name": missing[0].name}
        await connection.fetch(query("insert_schema_migration"), note, timeout_seconds=MIGRATE_SECONDS, write=True)
    await _run(connection, query("commit"))
    return missing[0].name if missing else None


async def pending(url: str) -> list[str]:
    """Names of migrations that are still to be applied. Raises SchemaMismatch as `migrate` does."""
    connection = await open_connection(url, timeout_seconds=CONNECT_SECONDS, application_name="lobu migrate")
    try:
        [(exists,)] = await _run(connection, query("has_schema_migration"))
        applied = await _applied(connection) if exists else {}
    finally:
        connection.close_now()
    return [migration.name for migration in _missing(applied)]


async def _run(connection: Connection, statement: bytes) -> list[tuple[object, ...]]:
    return await connection.fetch(statement, None, timeout_seconds=MIGRATE_SECONDS, write=True)


async def _applied(connection: Connection) -> dict[int, str]:
    rows = await connection.fetch(query("list_schema_migrations"), None, timeout_seconds=MIGRATE_SECONDS, write=False)
    return dict(rows)


def _missing(applied: dict[int, str]) -> list[Migration]:
    known = known_migrations()
    unknown = sorted(set(applied) - {migration.version for migration in known})
    if unknown:
        raise SchemaMismatch(
            f"the database has migration {applied[unknown[-1]]}, which this program does not know; run a newer program"
        )
    return [migration for migration in known if migration.version not in applied]

"""Brings a database's schema to what this program expects. Owns `schema_migration`; the statements are in migrations/.

Forward only and numbered. Each runs in one transaction behind an advisory lock, so two starting hosts do not race and a
failed migration leaves nothing behind. A program never starts on a schema that its files no longer describe: a file
that was edited after it was applied is noticed by its checksum.

A newer schema is another matter: while hosts get a new release one by one, and when it is taken back, programs of the
release before start on it. Each migration says for whom it is fit, `-- oldest: N` on its first line: programs that know
migration N run on it. It is kept with the note that it was applied, where they read it; without it only those run that
know the migration itself.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import msgspec

from lobu_actors.store.driver import Connection, open_connection
from lobu_actors.store.errors import SchemaMismatch
from lobu_actors.store.queries import query

MIGRATE_SECONDS = 600.0  # for one statement; building an index on a large table takes its time
CONNECT_SECONDS = 10.0
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")
_OLDEST = re.compile(rb"-- oldest: (\d+)\n")


class Migration(msgspec.Struct, frozen=True):
    version: int
    name: str
    statements: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.statements).hexdigest()

    @property
    def oldest(self) -> int:
        """Programs that know this migration run on a schema with it."""
        found = _OLDEST.match(self.statements)
        return self.version if found is None else int(found[1])


class Applied(msgspec.Struct, frozen=True):
    name: str
    sha256: str | None  # None: an older program applied it
    oldest: int


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
    """Apply what is pending; gives the names.

    Raises SchemaMismatch when the database is too new for this program, or a file is not what was applied.
    """
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
    applied = await _applied(connection)
    missing = _missing(applied)
    if any(one.sha256 is None for one in applied.values()):
        await _run(connection, query("add_schema_migration_checksum"))
        sums = [{"version": migration.version, "sha256": migration.sha256} for migration in known_migrations()]
        await _run(
            connection,
            query("fill_schema_migration_checksum_if_absent"),
            {"files": msgspec.json.encode(sums).decode()},
        )
    if missing:
        await _run(connection, query("add_schema_migration_oldest"))
        await _run(connection, missing[0].statements)
        note = {
            "version": missing[0].version,
            "name": missing[0].name,
            "sha256": missing[0].sha256,
            "oldest": missing[0].oldest,
        }
        await _run(connection, query("insert_schema_migration"), note)
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


async def _run(
    connection: Connection, statement: bytes, params: dict[str, object] | None = None
) -> list[tuple[object, ...]]:
    return await connection.fetch(statement, params, timeout_seconds=MIGRATE_SECONDS, write=True)


async def _applied(connection: Connection) -> dict[int, Applied]:
    rows = await connection.fetch(query("list_schema_migrations"), None, timeout_seconds=MIGRATE_SECONDS, write=False)
    return {version: Applied(name, sha256, oldest) for version, name, sha256, oldest in rows}


def _missing(applied: dict[int, Applied]) -> list[Migration]:
    """What is still to be applied. Raises SchemaMismatch when what is applied is not what this program has."""
    known = known_migrations()
    newest = known[-1].version
    unknown = sorted(version for version, one in applied.items() if version > newest < one.oldest)
    if unknown:
        raise SchemaMismatch(
            f"the database has migration {applied[unknown[-1]].name}, which this program does not know; "
            "run a newer program"
        )
    for migration in known:
        one = applied.get(migration.version)
        if one is not None and one.sha256 not in (None, migration.sha256):
            raise SchemaMismatch(
                f"the migration file {migration.name}.sql is not the one that was applied to this database; "
                "put the file back as it was and make the change in a new migration"
            )
    return [migration for migration in known if migration.version not in applied]

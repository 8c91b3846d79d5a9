"""Loads the named queries from `queries/*.sql`. Owns the file format; knows nothing of what the queries mean.

A query begins with `-- name: <name>`, goes on with at least one comment line of description, and ends where the next
one begins. Text is loaded once, without comments, at import: a file that does not fit fails at start, not at first use.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"-- name: ([a-z][a-z0-9_]*)\Z")
_PLACEHOLDER = re.compile(rb"%(?:\((\w+)\)s|(%))")


def parse_queries(text: str, source: str) -> dict[str, bytes]:
    """Statements by name. Raises ValueError naming `source` and the query that does not fit."""
    queries: dict[str, bytes] = {}
    name: str | None = None
    described = False
    lines: list[str] = []

    def finish() -> None:
        if name is None:
            return
        statement = "\n".join(lines).rstrip(";")
        if not described or not statement:
            raise ValueError(f"{source}: query {name} lacks its description or its statement")
        if name in queries:
            raise ValueError(f"{source}: query {name} stands there twice")
        queries[name] = statement.encode()

    for line in text.splitlines():
        stripped = line.strip()
        if match := _NAME.match(stripped):
            finish()
            name, described, lines = match[1], False, []
        elif stripped.startswith("--"):
            described = True
        elif stripped:
            lines.append(stripped)
    finish()
    return queries


def _load() -> dict[str, bytes]:
    loaded: dict[str, bytes] = {}
    for entry in sorted(files("lobu_actors.store").joinpath("queries").iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".sql"):
            continue
        for name, statement in parse_queries(entry.read_text("utf-8"), entry.name).items():
            if name in loaded:
                raise ValueError(f"{entry.name}: query {name} stands in another file already")
            loaded[name] = statement
    return loaded


_QUERIES = _load()


def query(name: str) -> bytes:
    """The statement of a name, with psycopg's named placeholders. Raises KeyError for an unknown name."""
    return _QUERIES[name]


@cache
def positional(statement: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A statement with the server's own placeholders, and the names of their values in order."""
    names: dict[bytes, int] = {}

    def place(found: re.Match[bytes]) -> bytes:
        return b"%" if found[2] else b"$%d" % names.setdefault(found[1], len(names) + 1)

    return _PLACEHOLDER.sub(place, statement), tuple(name.decode() for name in names)


def query_names() -> list[str]:
    return list(_QUERIES)

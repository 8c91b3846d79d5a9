"""Loads the named queries from `queries/*.sql`. Owns the file format; knows nothing of what the queries mean.

A query begins with `-- name: <name>`, goes on with at least one comment line of description, and ends where the next
one begins. Text is loaded once, without comments, at import: a file that does not fit fails at start, not at first use.

A text may be two queries: `-- without the brackets: <name>` among the comments names one that lacks all lines between
`-- [` and `-- ]`. For what few need, since a statement's every step costs whether there is anything to do in it or not.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"-- name: ([a-z][a-z0-9_]*)\Z")
_SHORT = re.compile(r"-- without the brackets: ([a-z][a-z0-9_]*)\Z")
_PLACEHOLDER = re.compile(rb"%(?:\((\w+)\)s|(%))")


def parse_queries(text: str, source: str) -> dict[str, bytes]:
    """Statements by name. Raises ValueError naming `source` and the query that does not fit."""
    queries: dict[str, bytes] = {}
    name = short = ""
    described = False
    lines: list[tuple[str, bool]] = []  # and whether in brackets

    def add(name: str, lines: list[str]) -> None:
        statement = "\n".join(lines).rstrip(";")
        if not described or not statement:
            raise ValueError(f"{source}: query {name} lacks its description or its statement")
        if name in queries:
            raise ValueError(f"{source}: query {name} stands there twice")
        queries[name] = statement.encode()

    def finish() -> None:
        if bracketed or bool(short) != any(inside for _, inside in lines):
            raise ValueError(f"{source}: query {name} lacks a bracket, or a name without the brackets")
        if name:
            add(name, [line for line, _ in lines])
        if short:
            add(short, [line for line, inside in lines if not inside])

    bracketed = False
    for line in text.splitlines():
        stripped = line.strip()
        if match := _NAME.match(stripped):
            finish()
            name, short, described, lines = match[1], "", False, []
        elif match := _SHORT.match(stripped):
            short = match[1]
        elif stripped in ("-- [", "-- ]"):
            bracketed = stripped == "-- ["
        elif stripped.startswith("--"):
            described = True
        elif stripped:
            lines.append((stripped, bracketed))
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

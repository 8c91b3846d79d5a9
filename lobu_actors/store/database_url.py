"""Reads what DATABASE_URL says: a server elsewhere, or a folder in which to run our own. Opens nothing."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import msgspec

from lobu_actors.store.errors import InvalidDatabaseUrl


class ExternalDatabase(msgspec.Struct, frozen=True):
    """A server that somebody else runs."""

    url: str


class TcpTimeouts(msgspec.Struct, frozen=True):
    """How soon a connection notices that the other end is gone; on both ends. None: as the driver has it."""

    keepalive_idle_seconds: int | None = None
    keepalive_interval_seconds: int | None = None
    keepalive_count: int | None = None
    user_timeout_seconds: int | None = None  # for what was sent and is not acknowledged


class EmbeddedDatabase(msgspec.Struct, frozen=True):
    """A server of our own, its data in `path`/.lobu/pgdata."""

    path: Path


def parse_database_url(value: str, data_dir: Path) -> ExternalDatabase | EmbeddedDatabase:
    """`postgres://…` is external; a path or `file:…` embedded, relative ones behind `data_dir`; empty is `data_dir`.

    Raises InvalidDatabaseUrl with one sentence that says what is wrong. The value itself is not repeated: it may hold
    a password.
    """
    text = value.strip()
    scheme, colon, rest = text.partition(":")
    if scheme in ("postgres", "postgresql") and colon:
        if not rest.startswith("//") or len(rest) == 2:
            raise InvalidDatabaseUrl("the database URL names no server; write postgresql://user@host/database")
        return ExternalDatabase(text)
    if scheme == "file" and colon:
        text = unquote(rest.removeprefix("//"))
        if rest.startswith("//") and not text.startswith("/"):
            raise InvalidDatabaseUrl("a file URL of the database names a host; write file:/path or file:path")
    elif "://" in text:
        raise InvalidDatabaseUrl(
            f"the database URL begins with {scheme}://, which is no PostgreSQL server; "
            "write postgresql://…, a path, or file:path"
        )
    if "\0" in text:
        raise InvalidDatabaseUrl("the database path holds a NUL character")
    path = (data_dir / Path(text or ".").expanduser()).absolute()
    if path.exists() and not path.is_dir():
        raise InvalidDatabaseUrl(f"{path} is not a folder; the embedded database needs one")
    return EmbeddedDatabase(path)


def with_timeouts(url: str, timeouts: TcpTimeouts) -> str:
    """A server's URL that says them too, as libpq's parameters; what it says by itself stays."""
    user_timeout = timeouts.user_timeout_seconds
    wanted = {
        "keepalives_idle": timeouts.keepalive_idle_seconds,
        "keepalives_interval": timeouts.keepalive_interval_seconds,
        "keepalives_count": timeouts.keepalive_count,
        "tcp_user_timeout": None if user_timeout is None else user_timeout * 1000,
    }
    _, mark, said = url.partition("?")
    known = {part.partition("=")[0] for part in said.split("&")}
    added = "&".join(f"{name}={value}" for name, value in wanted.items() if value is not None and name not in known)
    if not added:
        return url
    return f"{url}{'&' if said else '' if mark else '?'}{added}"

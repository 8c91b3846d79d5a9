"""Finds out whether the database is behind a pooler that gives a connection another session at each transaction.

A host needs sessions of its own: for LISTEN, for session locks, for prepared statements and the settings of
`prepare_session`. Behind such a pooler all of that is now there and now not, under load first.

Two facts are looked at, and no names. Whoever multiplexes connections must answer cancel requests, so at connecting it
gives a process id of its own making; the session itself says another one. That alone may be a pooler in session mode,
which is fine. So then further connections hold transactions open: in transaction mode one of them gets the session that
the first had a moment ago, or the first finds itself in another one. What this cannot see: a pooler that passes on the
server's own ids (none is known), and one with so many idle sessions, handed out in turn, that ours never meet.
"""

from __future__ import annotations

from contextlib import ExitStack

from lobu_actors.store.driver import Connection, Row, open_connection
from lobu_actors.store.errors import SessionsShared, StoreError
from lobu_actors.store.queries import query

ANSWER_SECONDS = 10.0
OTHERS = 2


async def check_sessions(url: str) -> None:
    """Raises SessionsShared when a connection to `url` is not a session of its own; StoreUnavailable."""
    with ExitStack() as stack:

        async def connect() -> Connection:
            connection = await open_connection(url, timeout_seconds=ANSWER_SECONDS)
            stack.callback(connection.close_now)
            return connection

        first = await connect()
        session = await _session(first)
        if session == first.pgconn.backend_pid:
            return
        for _ in range(OTHERS):
            other = await connect()
            try:
                await _run(other, "begin")
                is_shared = await _session(other) == session
            except StoreError as error:
                if "pooling" not in str(error):
                    raise
                is_shared = True  # it takes no transactions, since each statement goes to any session
            if is_shared or await _session(first) != session:
                raise SessionsShared(
                    "the database is reached through a pooler in transaction mode (as PgBouncer's), which gives every "
                    "transaction another session; let DATABASE_URL name the server itself, or a pool in session mode"
                )


async def _session(connection: Connection) -> int:
    [(pid,)] = await _run(connection, "session_pid")
    return int(pid)


async def _run(connection: Connection, name: str) -> list[Row]:
    return await connection.fetch(query(name), None, timeout_seconds=ANSWER_SECONDS, write=False)

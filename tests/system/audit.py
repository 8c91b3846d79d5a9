"""The promises as the database alone can tell: what `lobu audit` checks, and that all is done when it should be."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import trio

from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres.audit import Audit

SHOWN = 5  # rows of one check

# One sentence each, for what is right while there is work, and wrong once there should be none.
_QUIET_CHECKS = {
    "a turn that is owed still": "SELECT turn_id, run_id FROM turn_marker",
    "a run that is live still": "SELECT run_id, turn_ids FROM run WHERE status = 'live'",
}


def broken_promises(url: str, *, accepted: Iterable[str] = (), quiet: bool = True) -> list[str]:
    """One sentence for each broken promise. `accepted`: message ids whose acceptance was acknowledged.

    `quiet`: nothing should be owed any more. Blocks; may be called from a trio task.
    """
    with ThreadPoolExecutor(1) as thread:  # trio runs in the caller's
        found = thread.submit(trio.run, _audit, url).result()
    with psycopg.connect(url, autocommit=True) as connection:
        for sentence, statement in _QUIET_CHECKS.items() if quiet else ():
            rows = connection.execute(statement).fetchall()
            found += [f"{sentence}: {row}" for row in rows[:SHOWN]]
            if len(rows) > SHOWN:
                found.append(f"{sentence}: {len(rows) - SHOWN} more")
        known = {row[0] for row in connection.execute("SELECT message_id FROM turn")}
        found += [f"an acknowledged message that is not there: {name}" for name in set(accepted) - known]
    return found


def owed(url: str) -> int:
    """How many turns are owed."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM turn_marker").fetchone()
    return 0 if row is None else int(row[0])


async def _audit(url: str) -> list[str]:
    pool = Pool(url, size=1)
    try:
        verdicts = await Audit(pool).run()
    finally:
        pool.close()
    return [
        f"{finding.invariant} {finding.check}: {finding.row}" for verdict in verdicts for finding in verdict.findings
    ]


def log_of(url: str, conversation_id: str) -> list[tuple[int, str, str | None]]:
    """A conversation's log: seq, type, message id."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "SELECT seq, type, data ->> 'messageId' FROM conversation_event WHERE conversation_id = %s ORDER BY seq",
            (conversation_id,),
        ).fetchall()


def turn_of(url: str, message_id: str) -> tuple[str, int, int]:
    """A turn's status, attempt and failures."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT status, attempt, failures FROM turn WHERE message_id = %s", (message_id,)
        ).fetchone()
    assert row is not None, f"no turn for {message_id}"
    return row[0], row[1], row[2]

"""Several complete hosts on this machine, over the one embedded Postgres of the first, and what that server spends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import psycopg

from benchmarks.server import own_server

ENVIRONMENT = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"bench:{'b' * 40}"}
LINK_SECONDS = 30.0
SETTLE_SECONDS = 11.0  # an idle session hands its counters to pg_stat_database within ten


@attrs.frozen
class Spent:
    """What Postgres did in a while. Every statement of a host is a transaction of its own; `commits` are those that
    wrote, each of which waits for the write-ahead log."""

    seconds: float
    transactions: int
    commits: int
    wal_bytes: int

    def per_turn(self, idle: Spent, turns: int) -> dict[str, float]:
        """Less what the hosts do in that time without any turn."""
        return {
            name: round((getattr(self, name) - getattr(idle, name) * self.seconds / idle.seconds) / turns, digits)
            for name, digits in (("transactions", 2), ("commits", 2), ("wal_bytes", 0))
        }

    def per_second(self) -> dict[str, float]:
        return {name: round(getattr(self, name) / self.seconds, 2) for name in ("transactions", "commits", "wal_bytes")}


class Meter:
    """Reads the server's counters."""

    def __init__(self, url: str) -> None:
        self._database: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        self._last = self._read()

    def settle(self) -> None:
        """Wait until every session has handed in what it counted; what comes then is in `spent`."""
        time.sleep(SETTLE_SECONDS)

    def spent(self) -> Spent:
        """Since the last call; its transactions are complete when it settled before both."""
        before, self._last = self._last, self._read()
        seconds, transactions, commits, wal = (new - old for new, old in zip(self._last, before, strict=True))
        return Spent(seconds, int(transactions), int(commits), int(wal))

    def close(self) -> None:
        self._database.close()

    def _read(self) -> tuple[float, float, float, float]:
        [row] = self._database.execute(
            "SELECT (SELECT sum(xact_commit) FROM pg_stat_database)::float8, "
            "pg_snapshot_xmax(pg_current_snapshot())::text::float8, "
            "pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8"
        ).fetchall()
        return time.perf_counter(), row[0], row[1], row[2]


class Cluster:
    """The first host has the database; `add` starts one more."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.hosts = [stack.enter_context(own_server(environment=ENVIRONMENT))]
        self.url = self.hosts[0].database_url

    def add(self) -> None:
        """One more, linked with all others when this returns."""
        self.hosts.append(self._stack.enter_context(own_server(database_url=self.url, environment=ENVIRONMENT)))
        wanted = len(self.hosts) - 1
        deadline = time.monotonic() + LINK_SECONDS
        with psycopg.connect(self.url, autocommit=True) as database:
            while True:
                rows = database.execute("SELECT (links ->> 'up')::int FROM host WHERE state = 'active'").fetchall()
                if [row[0] for row in rows] == [wanted] * len(self.hosts):
                    return
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the hosts are not linked: {rows} links are up, of {wanted} each")
                time.sleep(0.1)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """With one host; all are stopped at the end, that with the database last."""
    with ExitStack() as stack:
        yield Cluster(stack)

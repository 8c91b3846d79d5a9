"""Several complete hosts on this machine, over one Postgres, and what that server spends."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import psycopg

from benchmarks.server import Server, own_server

# What hosts of one cluster must have in common.
SHARED = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"bench:{'s' * 40}"}
LINK_SECONDS = 30.0


def links_made(host: Server) -> int:
    """How many links to others it has made since its first start."""
    return host.log().count("link is up")


def wait_for_links(host: Server, number: int) -> None:
    """Until it has made so many since its first start. Raises RuntimeError with the end of its log."""
    deadline = time.monotonic() + LINK_SECONDS
    while links_made(host) < number:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the hosts are not linked:\n{host.log()[-2000:]}")
        time.sleep(0.05)


@contextmanager
def cluster(database_url: str, number: int) -> Iterator[Sequence[Server]]:
    """So many hosts, each linked with all others; at the end they leave as hosts do that are told to (SIGTERM), so that
    the next ones on this database do not wait for them."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(own_server(database_url=database_url, environment=SHARED)) for _ in range(number)]
        for host in hosts:
            wait_for_links(host, number - 1)
        yield hosts
        for host in hosts:
            host.signal(signal.SIGTERM)
        for host in hosts:
            host.wait()


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
            name: (getattr(self, name) - getattr(idle, name) * self.seconds / idle.seconds) / turns
            for name in ("transactions", "commits", "wal_bytes")
        }

    def per_second(self) -> dict[str, float]:
        return {name: getattr(self, name) / self.seconds for name in ("transactions", "commits", "wal_bytes")}


class Meter:
    """Reads the server's counters. `settle_seconds`: how long sessions may keep what they counted to themselves."""

    def __init__(self, database_url: str, settle_seconds: float) -> None:
        self._database: psycopg.Connection[Any] = psycopg.connect(database_url, autocommit=True)
        self._settle_seconds = settle_seconds
        self._last = self._read()

    def settle(self) -> None:
        """Wait until every session has handed in what it counted; what comes then is in `spent`."""
        time.sleep(self._settle_seconds)

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

"""A bounded pool of connections. Owns who may use which connection and for how long to wait; knows no query.

A permit of a fair semaphore is the right to one connection. Its holder takes the most recently used idle one (its
caches are warm, the others age) or opens one, so there are never more connections than permits. One more permit is kept
for what must not wait behind all others (`urgent`): a host whose statements are slow is not to lose its lease for that,
and its turns with it. Nothing is asked of
the server before use; a socket on which the server has already spoken (it hung up) is seen without a round trip and
dropped, so a restart costs the next write no unknown outcome. When a connection breaks, all idle ones go with it; not
when its user was quick to give up, which says nothing of the server. Reconnecting again and again is the caller's
business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from lobu_actors.store.driver import Connection, Row, open_connection
from lobu_actors.store.errors import StoreUnavailable

SILENT_SECONDS = 1.0  # of a statement whose user gives up: from then on the server may be at fault, and not the user


class Pool:
    """At most `size` connections to one database and one for what is urgent, opened when they are needed."""

    def __init__(
        self, url: str, *, size: int = 8, call_timeout_seconds: float = 10.0, application_name: str | None = None
    ) -> None:
        if size < 1 or call_timeout_seconds <= 0:
            raise ValueError("a pool needs at least one connection and a positive deadline")
        self.url = url
        self._timeout = call_timeout_seconds
        self._name = application_name
        self._permits = trio.Semaphore(size, max_value=size)
        self._urgent = trio.Semaphore(1, max_value=1)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._closed = False

    async def fetch(
        self,
        statement: bytes,
        params: dict[str, Any] | None = None,
        *,
        write: bool,
        binary: bool = False,
        share: float = 1.0,
        urgent: bool = False,
    ) -> list[Row]:
        """One statement on a connection of the pool, within `share` of the call deadline, waiting for a connection
        included.

        Raises StoreUnavailable when it was never sent; else as `Connection.fetch`.
        """
        left = self._timeout * share
        permits = self._urgent if urgent else self._permits
        try:
            permits.acquire_nowait()
        except trio.WouldBlock:
            left -= await _wait_for_permit(permits, left)
        try:
            connection = self._take_idle()
            if connection is None:
                began = trio.current_time()
                connection = await self._open(left)
                left -= trio.current_time() - began
            return await self._use(connection, statement, params, left, write, binary)
        finally:
            permits.release()

    def _take_idle(self) -> Connection | None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet:
                return connection
            connection.close_now()
            self._drop_idle()
        return None

    async def _open(self, timeout_seconds: float) -> Connection:
        connection = await open_connection(
            self.url, timeout_seconds=max(timeout_seconds, 0), application_name=self._name
        )
        if self._closed:
            connection.close_now()
            raise StoreUnavailable("the store is closed")
        return connection

    async def _use(
        self, connection: Connection, statement: bytes, params: Any, timeout_seconds: float, write: bool, binary: bool
    ) -> list[Row]:
        self._busy.add(connection)
        began, broke = trio.current_time(), True
        try:
            if timeout_seconds <= 0:  # waiting took it all; sent now, a write would have an unknown outcome for nothing
                raise StoreUnavailable(f"no free database connection within {self._timeout:g} s")
            return await connection.fetch(
                statement, params, timeout_seconds=timeout_seconds, write=write, binary=binary
            )
        except trio.Cancelled:
            broke = trio.current_time() - began >= SILENT_SECONDS
            raise
        finally:
            self._busy.discard(connection)
            if connection.closed:
                if broke:
                    self._drop_idle()
            elif self._closed:
                connection.close_now()
            else:
                self._idle.append(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own, outside the bound, closed at the end: for migrations, LISTEN, session locks."""
        connection = await open_connection(self.url, timeout_seconds=self._timeout, application_name=self._name)
        try:
            yield connection
        finally:
            connection.close_now()

    def _drop_idle(self) -> None:
        for connection in self._idle:
            connection.close_now()
        self._idle.clear()

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def busy_count(self) -> int:
        return len(self._busy)

    def close(self) -> None:
        """Close every connection; statements under way fail, later calls raise StoreUnavailable. Repeatable."""
        self._closed = True
        self._drop_idle()
        for connection in list(self._busy):
            connection.close_now()


async def _wait_for_permit(permits: trio.Semaphore, seconds: float) -> float:
    """Gives how many seconds that took."""
    began = trio.current_time()
    with trio.CancelScope(deadline=began + seconds) as scope:
        await permits.acquire()
    if scope.cancelled_caught:
        raise StoreUnavailable(f"no free database connection within {seconds:g} s")
    return trio.current_time() - began

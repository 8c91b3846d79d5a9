"""What hosts ask about each other, and notices between them, on Postgres.

A notice is heard on a connection of its own, which says nothing by itself when it is half dead: the server is asked
now and then, so that the listener learns of it within seconds. The same session holds the host's lock. It does not get
it at once where the server has not noticed yet that the host's session before is over, or another host looks whether
the lock is free: then it asks until it has it, since a free lock says that the host is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.driver import Connection
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.postgres.rows import Part, ref_params
from lobu_actors.store.queries import query

CHECK_SECONDS = 5.0
ANSWER_SECONDS = 5.0
LOCK_AGAIN_SECONDS = 0.5  # between two questions for a lock that somebody else has


class LinkPart(Part):
    """Implements `link_protocol.LinkStore`."""

    async def find_peers(self, host_id: str) -> list[Peer]:
        return [Peer(*row) for row in await self.read("find_peers", {"host_id": host_id})]

    async def find_owner(self, ref: ConversationRef) -> str | None:
        rows = await self.read("find_owner", ref_params(ref))
        return rows[0][0] if rows else None

    async def notify(self, host_id: str, payload: str) -> None:
        await self.read("notify", {"channel": channel(host_id), "payload": payload})

    async def declare_dead_if_gone(self, host_id: str) -> bool:
        return bool(await self.write("declare_host_dead_if_unlocked", {"host_id": host_id}))

    @asynccontextmanager
    async def listening(self, host_id: str) -> AsyncIterator[PostgresNotices]:
        async with self.pool.connection() as connection:
            notices = PostgresNotices(connection, host_id)
            await notices.hold()
            await connection.listen(channel(host_id), timeout_seconds=ANSWER_SECONDS)
            yield notices


class PostgresNotices:
    """Implements `link_protocol.Notices`."""

    def __init__(self, connection: Connection, host_id: str) -> None:
        self._connection = connection
        self._host_id = host_id
        self._holds = False

    async def hold(self) -> None:
        """The host's lock, if nobody else has it."""
        params = {"host_id": self._host_id}
        [(self._holds,)] = await self._connection.fetch(
            query("hold_host_lock"), params, timeout_seconds=ANSWER_SECONDS, write=False
        )

    async def receive(self) -> list[str]:
        while True:
            if not self._holds:
                await self.hold()
            heard = self._connection.heard()
            if heard:
                return heard
            with trio.move_on_after(CHECK_SECONDS if self._holds else LOCK_AGAIN_SECONDS) as scope:
                await self._connection.wait_readable()
            if scope.cancelled_caught and self._holds:
                await self._connection.fetch(query("now"), None, timeout_seconds=ANSWER_SECONDS, write=False)


def channel(host_id: str) -> str:
    return f"lobu_{host_id}"

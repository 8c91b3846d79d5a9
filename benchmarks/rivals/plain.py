"""What a good engineer writes in a day: one process, two commits a turn, tasks in memory, and no guarantees.

A turn that is under way when the process dies is failed at the next start, which is right as long as there is one
process. Nothing watches a worker that hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from starlette.applications import Starlette

from benchmarks.rivals.interface import DATABASE, frame
from benchmarks.rivals.pool import Pool, WorkerDied
from benchmarks.rivals.turn_table import FAIL_OPEN, SCHEMA
from benchmarks.rivals.web import Hub, app, serve

ACCEPT = "INSERT INTO turn (id, conversation, content) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id"
END = "UPDATE turn SET event = $2, reply = $3, number = nextval('turn_event') WHERE id = $1 RETURNING number"
ENDED = (
    "SELECT id, event, number FROM turn WHERE conversation = $1 AND number > $2 AND event IS NOT NULL ORDER BY number"
)
CONNECTIONS = 16


class Service:
    def __init__(self) -> None:
        self.hub = Hub()
        self._pool = Pool()
        self._tasks: set[asyncio.Task[None]] = set()
        self._database: Any = None

    @asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(DATABASE, min_size=CONNECTIONS, max_size=CONNECTIONS) as self._database:
            await self._database.execute(SCHEMA)
            await self._database.execute(FAIL_OPEN)
            yield

    async def accept(self, conversation: str, message: str, text: str) -> None:
        if await self._database.fetchval(ACCEPT, message, conversation, text) is None:
            return  # it was posted twice
        task = asyncio.create_task(self._run(conversation, message, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, conversation: str, message: str, text: str) -> None:
        def on_delta(piece: str) -> None:
            self.hub.publish(conversation, frame("output", content=piece, messageId=message))

        try:
            event, reply = "complete", await self._pool.turn(conversation, text, on_delta)
        except WorkerDied as died:
            event, reply = "agent-error", str(died)
        number = await self._database.fetchval(END, message, event, reply)
        self.hub.publish(conversation, frame(event, number, messageId=message))

    async def ended(self, conversation: str, behind: int) -> list[bytes]:
        rows = await self._database.fetch(ENDED, conversation, behind)
        return [frame(row["event"], row["number"], messageId=row["id"]) for row in rows]


if __name__ == "__main__":
    service = Service()
    serve(app(service.hub, service.accept, service.ended, service.life))

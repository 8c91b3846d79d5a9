"""PgQueuer: a message is a job, and the consumer is a task in the service's own loop.

Its part: the job is kept until it was done, and given to another consumer when its heartbeat stops for 30 s (its
default). Ours here: the terminal event, one more statement, once for each message. A failed worker fails the turn; the
job is done with that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, PgQueuer, Queries
from starlette.applications import Starlette

from benchmarks.rivals.interface import DATABASE, frame
from benchmarks.rivals.pool import Pool, WorkerDied
from benchmarks.rivals.web import Hub, app, serve

SCHEMA = """
CREATE TABLE IF NOT EXISTS ended (
    id text PRIMARY KEY,
    conversation text NOT NULL,
    event text NOT NULL,
    reply text NOT NULL,
    number bigserial
);
CREATE INDEX IF NOT EXISTS ended_number ON ended (conversation, number);
"""
END = (
    "INSERT INTO ended (id, conversation, event, reply) VALUES ($1, $2, $3, $4) "
    "ON CONFLICT (id) DO NOTHING RETURNING number"
)
ENDED = "SELECT id, event, number FROM ended WHERE conversation = $1 AND number > $2 ORDER BY number"
CONNECTIONS = 16
JOB = "turn"


class Service:
    def __init__(self) -> None:
        self.hub = Hub()
        self._pool = Pool()
        self._database: Any = None
        self._jobs: Any = None

    @asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(DATABASE, min_size=CONNECTIONS, max_size=CONNECTIONS) as self._database:
            await self._database.execute(SCHEMA)
            self._jobs = Queries(AsyncpgPoolDriver(self._database))
            if not await self._jobs.has_table("pgqueuer"):
                await self._jobs.install()
            consumer = PgQueuer(AsyncpgDriver(await asyncpg.connect(DATABASE)))
            consumer.entrypoint(JOB)(self._run)
            task = asyncio.create_task(consumer.run())
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def accept(self, conversation: str, message: str, text: str) -> None:
        payload = json.dumps({"conversation": conversation, "message": message, "text": text}).encode()
        await self._jobs.enqueue(JOB, payload, dedupe_key=message, on_conflict="skip")

    async def _run(self, job: Any) -> None:
        turn = json.loads(job.payload)
        conversation, message = turn["conversation"], turn["message"]

        def on_delta(piece: str) -> None:
            self.hub.publish(conversation, frame("output", content=piece, messageId=message))

        try:
            event, reply = "complete", await self._pool.turn(conversation, turn["text"], on_delta)
        except WorkerDied as died:
            event, reply = "agent-error", str(died)
        number = await self._database.fetchval(END, message, conversation, event, reply)
        if number is not None:
            self.hub.publish(conversation, frame(event, number, messageId=message))

    async def ended(self, conversation: str, behind: int) -> list[bytes]:
        rows = await self._database.fetch(ENDED, conversation, behind)
        return [frame(row["event"], row["number"], messageId=row["id"]) for row in rows]


if __name__ == "__main__":
    service = Service()
    serve(app(service.hub, service.accept, service.ended, service.life))

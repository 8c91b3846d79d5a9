"""The day's work of `plain`, on the packages that ours is made of: Quart-Trio, Hypercorn, trio, psycopg. No guarantees.

It says how much of the difference between ours and the plain service lies in the packages. Its statements go through
our driver, which is the quickest way to use psycopg on trio; everything else is used as the packages' own pages say.
"""

from __future__ import annotations

import hmac
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

from benchmarks.rivals.interface import DATABASE, HERE, KEY, MOST_WAITING, PORT, REFUSED, frame, token_of
from benchmarks.rivals.places import ROOT, WORKER
from benchmarks.rivals.turn_table import FAIL_OPEN, SCHEMA
from lobu_actors.store.pool import Pool

ACCEPT = (
    b"INSERT INTO turn (id, conversation, content) VALUES (%(message)s, %(conversation)s, %(content)s) "
    b"ON CONFLICT (id) DO NOTHING RETURNING id"
)
END = (
    b"UPDATE turn SET event = %(event)s, reply = %(reply)s, number = nextval('turn_event') "
    b"WHERE id = %(message)s RETURNING number"
)
ENDED = (
    b"SELECT id, event, number FROM turn WHERE conversation = %(conversation)s AND number > %(behind)s "
    b"AND event IS NOT NULL ORDER BY number"
)
CONNECTIONS = 16

app = QuartTrio(__name__)


class WorkerDied(Exception):
    """In the middle of a turn. The next turn gets a new one."""


class Worker:
    """Of one conversation; started by its first turn. A turn waits for the one before."""

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self._process: trio.Process | None = None
        self._said = b""

    async def turn(self, text: str, conversation: str, message: str) -> str:
        """The reply. Raises WorkerDied."""
        if self._process is None:
            command = [sys.executable, "-S", "-E", str(ROOT / WORKER)]
            self._process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        pieces: list[str] = []
        try:
            await self._process.stdin.send_all(json.dumps({"text": text}).encode() + b"\n")
            while line := await self._line():
                said = json.loads(line)
                if "done" in said:
                    return "".join(pieces)
                pieces.append(said["delta"])
                publish(conversation, frame("output", content=said["delta"], messageId=message))
        except trio.BrokenResourceError:
            pass
        process, self._process, self._said = self._process, None, b""
        raise WorkerDied(f"the worker ended with status {await process.wait()}")

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._said:
            data = await self._process.stdout.receive_some()
            if not data:
                return b""
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line


class Rows:
    """Set up when the app starts."""

    def __init__(self) -> None:
        self._pool: Pool | None = None

    async def open(self) -> None:
        self._pool = Pool(DATABASE, size=CONNECTIONS)
        for statement in (SCHEMA, FAIL_OPEN):
            await self._pool.fetch(statement.encode(), write=True)

    async def fetch(self, statement: bytes, **params: object) -> list[tuple[Any, ...]]:
        assert self._pool is not None
        return await self._pool.fetch(statement, params, write=True)


rows = Rows()
workers: dict[str, Worker] = {}
readers: dict[str, set[trio.MemorySendChannel[bytes]]] = {}


def publish(conversation: str, data: bytes) -> None:
    for reader in list(readers.get(conversation, ())):
        try:
            reader.send_nowait(data)
        except trio.WouldBlock:
            reader.close()


async def run(conversation: str, message: str, text: str) -> None:
    worker = workers.setdefault(conversation, Worker())
    async with worker.lock:
        try:
            event, reply = "complete", await worker.turn(text, conversation, message)
        except WorkerDied as died:
            event, reply = "agent-error", str(died)
        [(number,)] = await rows.fetch(END, message=message, event=event, reply=reply)
        publish(conversation, frame(event, number, messageId=message))


def may(wanted: str) -> bool:
    return hmac.compare_digest(request.headers.get("Authorization", ""), f"Bearer {wanted}")


@app.before_serving
async def begin() -> None:
    await rows.open()


@app.post(HERE)
async def open_conversation() -> Any:
    if not may(KEY):
        return REFUSED, 401
    conversation = uuid4().hex
    return {"success": True, "agentId": conversation, "token": token_of(conversation)}, 201


@app.post(HERE + "/<conversation>/messages")
async def post(conversation: str) -> Any:
    if not may(token_of(conversation)):
        return REFUSED, 401
    body = await request.get_json()
    message = body.get("messageId") or uuid4().hex
    if await rows.fetch(ACCEPT, message=message, conversation=conversation, content=body["content"]):
        app.nursery.start_soon(run, conversation, message, body["content"])
    return {"success": True, "messageId": message}


@app.get(HERE + "/<conversation>/events")
async def events(conversation: str) -> Any:
    if not may(token_of(conversation)):
        return REFUSED, 401
    last_id = request.headers.get("Last-Event-Id")
    response = Response(read(conversation, int(last_id) if last_id else None), mimetype="text/event-stream")
    response.timeout = None
    return response


async def read(conversation: str, behind: int | None) -> AsyncIterator[bytes]:
    """What comes, and first, for one who knows the events up to `behind`, what came meanwhile."""
    send, receive = trio.open_memory_channel[bytes](MOST_WAITING)
    mine = readers.setdefault(conversation, set())
    mine.add(send)
    try:
        yield frame("connected")
        if behind is not None:
            for message, event, number in await rows.fetch(ENDED, conversation=conversation, behind=behind):
                yield frame(event, number, messageId=message)
        async for data in receive:
            yield data
    finally:
        mine.discard(send)
        if not mine:
            readers.pop(conversation, None)


def main() -> None:
    """Until it is killed."""
    config = Config()
    config.bind = [f"127.0.0.1:{PORT}"]
    config.backlog = 4096
    config.keep_alive_max_requests = sys.maxsize
    config.keep_alive_timeout = math.inf
    trio.run(serve, app, config)


if __name__ == "__main__":
    main()

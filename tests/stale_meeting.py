"""How the write of an owner that was paused and the takeover by another host meet in Postgres."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import attrs
import trio

from lobu_actors.store.driver import Connection
from lobu_actors.store.pool import Pool

WAYS = ("behind", "moment", "late")
CALL_SECONDS = 20.0
T = TypeVar("T")

_LOCK = (
    b"SELECT 1 FROM actor_lease WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s"
    b" FOR UPDATE"
)
_WAITS = b"SELECT 1 FROM pg_stat_activity WHERE application_name = %(name)s AND wait_event_type = 'Lock'"


@attrs.define(slots=False)
class Meeting(Generic[T]):
    """`take` is the takeover, `write` the stale write, `work` what the successor does then."""

    take: Callable[[], Awaitable[T]]
    write: Callable[[], Awaitable[object]]
    work: Callable[[T], Awaitable[None]]
    taken: Any = None
    result: object = None
    _done: set[str] = attrs.field(factory=set)

    async def hold(self, way: str, gate: Gate, owner: str, successor: str, random: random.Random) -> None:
        """`owner` and `successor`: the application names of their sessions."""
        async with trio.open_nursery() as nursery:
            if way == "behind":
                async with gate.closed():
                    nursery.start_soon(self._take)
                    await gate.someone_waits(successor, lambda: False)
                    nursery.start_soon(self._write)
                    await gate.someone_waits(owner, lambda: "write" in self._done)
            elif way == "moment":
                tasks = [self._take, self._write]
                random.shuffle(tasks)
                nursery.start_soon(tasks[0])
                await trio.sleep(random.choice((0.0, 0.0, random.uniform(0.0, 0.002))))
                nursery.start_soon(tasks[1])
            else:
                await self._take()
                nursery.start_soon(self._write)
                await self.work(self.taken)
        if way != "late":
            await self.work(self.taken)

    async def _take(self) -> None:
        self.taken = await self.take()
        self._done.add("take")

    async def _write(self) -> None:
        self.result = await self.write()
        self._done.add("write")


class Gate:
    """Holds one lease row, so that whoever wants it waits in line."""

    def __init__(self, watcher: Pool, held: Connection, organization_id: str, kind: str, key: str) -> None:
        self._watcher = watcher
        self._held = held
        self._words = {"organization_id": organization_id, "kind": kind, "key": key}

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        await self._run(b"BEGIN", None)
        assert await self._run(_LOCK, self._words), "there is no such lease"
        yield
        await self._run(b"COMMIT", None)

    async def someone_waits(self, application_name: str, done: Callable[[], bool]) -> None:
        """Until one of these sessions waits for a lock, or it is `done` without."""
        with trio.fail_after(CALL_SECONDS):
            while not done() and not await self._watcher.fetch(_WAITS, {"name": application_name}, write=False):
                pass

    async def _run(self, statement: bytes, words: dict[str, Any] | None) -> list[Any]:
        return await self._held.fetch(statement, words, timeout_seconds=CALL_SECONDS, write=True)

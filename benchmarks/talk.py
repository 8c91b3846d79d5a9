"""What every plan of the load generator is made of: conversations, and what it agrees on with its caller."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import attrs

from benchmarks.wire import Caller, Place, Reader

AT_ONCE = 32  # connections that are being made
WAIT_SECONDS = 120.0
TERMINALS = {b"complete", b"agent-error", b"cancelled"}
_EVENT = re.compile(rb"^event: (\S+)", re.MULTILINE)
_MESSAGE_ID = re.compile(rb'"messageId": ?"([^"]+)"')
_CONTENT = re.compile(rb'"content": ?"([^"]*)"')

Json = dict[str, Any]


def event_of(frame: bytes) -> bytes:
    found = _EVENT.search(frame)
    return found[1] if found else b"message"


def content_of(frame: bytes) -> bytes:
    found = _CONTENT.search(frame)
    return found[1] if found else b""


def stamps_of(frame: bytes) -> list[bytes]:
    """What a worker put on the pieces of a reply, see `stamp` in `benchmarks.agent`."""
    return content_of(frame).split()


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def agree(word: str) -> None:
    """Say it, and go on when the caller has answered."""
    tell(said=word)
    await asyncio.to_thread(sys.stdin.readline)


@attrs.define
class Talk:
    """A conversation with its poster and one reader, which is attached when it is open."""

    place: Place
    path: str
    token: str
    caller: Caller
    on_end: Callable[[str, bytes, float], None] = lambda message_id, event, at: None
    on_stamp: Callable[[bytes, float], None] | None = None
    reader: Reader | None = None
    waiting: dict[str, asyncio.Future[float]] = attrs.field(factory=dict)
    attached: asyncio.Event = attrs.field(factory=asyncio.Event)

    @classmethod
    async def open(cls, place: Place, agent: str | None, *, reads: bool = True) -> Talk:
        opener = await Caller.open(place, place.key)
        opened = await opener.ask(
            "/api/v1/agents", {"thread": uuid4().hex} if agent is None else {"thread": uuid4().hex, "agentId": agent}
        )
        opener.token = opened["token"]
        talk = cls(place, f"/api/v1/agents/{opened['agentId']}", opened["token"], opener)
        if reads:
            await talk._read()
        return talk

    async def at(self, place: Place) -> Talk:
        """The same conversation, read and posted to at another host."""
        talk = Talk(place, self.path, self.token, await Caller.open(place, self.token))
        await talk._read()
        return talk

    async def _read(self) -> None:
        self.reader = Reader(self._frame)
        await self.reader.open(self.place, f"{self.path}/events", self.token)
        async with asyncio.timeout(WAIT_SECONDS):
            await self.attached.wait()

    def send(self, content: str, message_id: str) -> asyncio.Future[tuple[int, bytes]]:
        return self.caller.post(f"{self.path}/messages", {"content": content, "messageId": message_id})

    async def ask(self, content: str) -> float:
        """The time of the terminal event. RuntimeError when the message is refused."""
        message_id = uuid4().hex
        ended = self.end_of(message_id)
        status, body = await self.send(content, message_id)
        if status != 200:
            raise RuntimeError(f"a message was answered with {status}: {body[:300].decode(errors='replace')}")
        async with asyncio.timeout(WAIT_SECONDS):
            return await ended

    def end_of(self, message_id: str) -> asyncio.Future[float]:
        """The time of its terminal event at this reader."""
        self.waiting[message_id] = asyncio.get_running_loop().create_future()
        return self.waiting[message_id]

    def close(self) -> None:
        self.caller.close()
        if self.reader is not None:
            self.reader.close()

    def _frame(self, frame: bytes, arrived: float) -> None:
        event = event_of(frame)
        if event == b"connected":
            self.attached.set()
        elif event == b"output" and self.on_stamp is not None:
            for stamp in stamps_of(frame):
                self.on_stamp(stamp, arrived)
        elif event in TERMINALS and (found := _MESSAGE_ID.search(frame)):
            message_id = found[1].decode()
            self.on_end(message_id, event, arrived)
            waiting = self.waiting.pop(message_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(arrived)


async def all_of(makers: list[Callable[[], Awaitable[Any]]], at_once: int = AT_ONCE) -> list[Any]:
    """Their results in order, `at_once` of them under way."""
    bound = asyncio.Semaphore(at_once)

    async def one(make: Callable[[], Awaitable[Any]]) -> Any:
        async with bound:
            return await make()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(make)) for make in makers]
    return [task.result() for task in tasks]


@attrs.define
class Share:
    """How much of a CPU this process used between `begin` and `end`."""

    wall: float = 0.0
    cpu: float = 0.0

    async def __aenter__(self) -> Share:
        await agree("begin")
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        await agree("end")

    def found(self) -> Json:
        return {"wall": self.wall, "client_cpu": self.cpu / self.wall}

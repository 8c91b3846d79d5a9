"""The real server on a free port, and small readers of what it sends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import trio

from edge.server import serve
from tests.fakes.edge_world import EdgeWorld


@attrs.frozen
class Running:
    world: EdgeWorld
    port: int
    stopping: trio.Event
    stopped: trio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key or self.world.admin_key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def running(world: EdgeWorld) -> AsyncIterator[Running]:
    stopping, stopped = trio.Event(), trio.Event()

    async def run(task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as timing:
            timing.start_soon(world.gateway.timers.fire)
            await serve(world.application, world.settings, stopping=stopping, task_status=task_status)
            timing.cancel_scope.cancel()
        stopped.set()

    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(_with_status, run))
        yield Running(world, port, stopping, stopped)
        stopping.set()


async def _with_status(run: Any, *, task_status: trio.TaskStatus[int]) -> None:
    await run(task_status)


@attrs.frozen
class Frame:
    event: str
    data: Any
    id: str | None


def parse_frames(raw: bytes) -> list[Frame]:
    """Frames with data; comments and unfinished ends are left out. Strict about the form."""
    assert b"\r" not in raw
    frames = []
    for block in raw.decode().split("\n\n")[:-1]:
        lines = block.split("\n")
        if all(line.startswith(":") for line in lines):
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert len(fields) == len(lines)
        assert set(fields) <= {"id", "event", "data", "retry"}
        frames.append(Frame(fields["event"], json.loads(fields["data"]), fields.get("id")))
    return frames


class EventReader:
    """Reads an event stream from a plain connection, in HTTP/1.0, which has no chunks: bytes are frames at once."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.head = b""
        self.body = b""

    @classmethod
    async def open(cls, server: Running, path: str, *headers: str, key: str | None = None) -> EventReader:
        return await cls._ask(server, "GET", path, b"", *headers, key=key)

    @classmethod
    async def post(cls, server: Running, path: str, body: Any, *headers: str) -> EventReader:
        raw = json.dumps(body).encode()
        kind = ("Content-Type: application/json", f"Content-Length: {len(raw)}")
        return await cls._ask(server, "POST", path, raw, *kind, *headers)

    @classmethod
    async def _ask(
        cls, server: Running, method: str, path: str, body: bytes, *headers: str, key: str | None = None
    ) -> EventReader:
        reader = cls(await server.connect())
        lines = [f"{method} {path} HTTP/1.0", f"Authorization: Bearer {key or server.world.admin_key}", *headers]
        await reader._stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        raw = b""
        while b"\r\n\r\n" not in raw:
            got = await reader._stream.receive_some()
            assert got, raw
            raw += got
        reader.head, _, reader.body = raw.partition(b"\r\n\r\n")
        return reader

    @property
    def frames(self) -> list[Frame]:
        return parse_frames(self.body)

    async def until(self, text: bytes, times: int = 1) -> bytes:
        with trio.fail_after(10):
            while self.body.count(text) < times:
                got = await self._stream.receive_some()
                assert got, self.body
                self.body += got
        return self.body

    async def to_end(self) -> bytes:
        with trio.fail_after(10):
            async for got in self._stream:
                self.body += got
        return self.body

    async def close(self) -> None:
        await self._stream.aclose()

"""A small HTTP server on a real socket that does to each connection what its script says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from lobu_actors.client import Client, RetryPolicy

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
FAST = RetryPolicy(attempts=4, base_seconds=0.001, max_seconds=0.01)


def frame(event: str, data: dict[str, Any], id: str | None = None) -> bytes:
    lines = [f"event: {event}"]
    if id is not None:
        lines.append(f"id: {id}")
    return "\n".join([*lines, f"data: {json.dumps(data, ensure_ascii=False)}", "", ""]).encode()


@attrs.frozen
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One request's answer, written piece by piece."""

    def __init__(self, stream: trio.SocketStream, request: Request) -> None:
        self.stream = stream
        self.request = request

    async def head(self) -> None:
        await self.stream.send_all(STREAM_HEAD + b"retry: 1\n" + frame("connected", {"agentId": "k", "timestamp": 1}))

    async def send(self, event: str, data: dict[str, Any], id: str | None = None) -> None:
        await self.stream.send_all(frame(event, data, id))

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def json(self, status: int, body: Any, head: str = "") -> None:
        data = json.dumps(body).encode()
        await self.stream.send_all(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{head}"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode()
            + data
        )

    async def stay(self) -> None:
        """Keep the connection open until the client drops it."""
        while await self.stream.receive_some(1024):
            pass


Script = Callable[[Connection], Awaitable[None]]


class Server:
    """`scripts` answer one connection each, in order; what comes after the last one is refused with 503."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.requests: list[Request] = []
        self.url = ""

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        await trio.serve_listeners(self._answer, listeners, task_status=task_status)

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = await self._read(stream)
            self.requests.append(request)
            connection = Connection(stream, request)
            try:
                if self.scripts:
                    await self.scripts.pop(0)(connection)
                else:
                    await connection.json(503, {"error": "no more scripts", "code": "DRAINING"})
            except trio.BrokenResourceError:
                pass

    async def _read(self, stream: trio.SocketStream) -> Request:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some(65536)
        method, target, _ = first.split(" ")
        return Request(method, target, headers, body)

    def client(self) -> Client:
        return Client(self.url, "lobu_test", retry=FAST)


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    server = Server()
    await nursery.start(server.serve)
    return server

"""A bare server in the place of ours, for the same load generator: sockets and bytes, and nothing kept.

What the same client sees here is the floor of what it can see there: connections, requests and the writing of each
chunk to each reader, by one plain asyncio process. `python -m benchmarks.bare` prints its port.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_MESSAGE = re.compile(rb'"messageId": ?"([^"]+)"')
_CONTENT = re.compile(rb'"content": ?"([^"]*)"')

readers: set[Connection] = set()
tasks: set[asyncio.Task[None]] = set()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame(event: str, **data: str) -> bytes:
    return chunk(f"event: {event}\nid: 1\ndata: {json.dumps(data)}\n\n".encode())


class Connection(asyncio.Protocol):
    """As much of the interface as the load generator uses."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\r\n\r\n")
            length = int(found[1]) if (found := _LENGTH.search(head)) else 0
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            hello = _HEAD + frame("connected")
            self.transport.write(hello + frame("complete", messageId="old") if b"last-event-id" in head else hello)
            readers.add(self)
            return
        said = {"success": True, "agentId": "bare", "token": "t"}
        data = json.dumps(said).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data))
        if b"/messages" in head and (message := _MESSAGE.search(body)) and (content := _CONTENT.search(body)):
            task = asyncio.get_running_loop().create_task(_reply(message[1].decode(), content[1].decode()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        readers.discard(self)


async def _reply(message_id: str, content: str) -> None:
    first, *words = content.split()
    if first == "stamp":
        due, delay = time.perf_counter(), float(words[1]) / 1e3
        for _ in range(int(words[0])):
            due += delay
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            _write(frame("output", type="delta", content=f"{time.perf_counter_ns()} ", messageId=message_id))
    _write(frame("complete", type="complete", messageId=message_id))


def _write(data: bytes) -> None:
    for reader in list(readers):
        reader.transport.write(data)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

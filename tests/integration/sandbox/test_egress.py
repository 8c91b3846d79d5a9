"""The proxy of sandboxed workers on its unix socket: bounds, clocks, what it lets through, what it leaves behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from supervisor.sandbox.destinations import Allowlist, Destination
from supervisor.sandbox.egress import Egress
from supervisor.sandbox.proxy import Clocks
from tests.integration.workers.conftest import ChildContext

CONNECTIONS = 3
LATE_SECONDS = 20.0  # no clock but the one that is meant ends anything in this time
PATIENT = Clocks(head=60.0, connect=60.0, idle=60.0)


class Way:
    """A running proxy with one worker, and an echoing server that is on its list."""

    def __init__(self, egress: Egress, folder: str, port: int) -> None:
        self.egress = egress
        self.folder = folder
        self.port = port
        self.streams: list[trio.SocketStream] = []

    async def open(self) -> trio.SocketStream:
        stream = await trio.open_unix_socket(f"{self.folder}/proxy.sock")
        self.streams.append(stream)
        return stream

    async def tunnel(self) -> trio.SocketStream:
        stream = await self.open()
        await stream.send_all(f"CONNECT 127.0.0.1:{self.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in await stream.receive_some()
        return stream


@pytest.fixture
def clocks() -> Clocks:
    return PATIENT


@pytest.fixture
async def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clocks: Clocks) -> AsyncIterator[Way]:
    async def echo(stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send_all(data)

    monkeypatch.chdir(tmp_path)  # so that the folder is again what it was
    deep = tmp_path / ("d" * 100)  # longer than a socket's path may be
    deep.mkdir()
    egress = Egress(deep / "egress", clocks=clocks, max_connections=CONNECTIONS)
    context = ChildContext()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(egress.run, context)
        await context.up.wait()
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, [listener])
        port = listener.socket.getsockname()[1]
        os.chdir(egress.open("w", Allowlist([Destination("127.0.0.1", port, private=True)])))
        way = Way(egress, ".", port)
        yield way
        os.chdir("/")
        for stream in way.streams:
            await stream.aclose()
        context.stopping.set()
        nursery.cancel_scope.cancel()


async def test_both_ways_and_half_closed(way: Way) -> None:
    stream = await way.tunnel()
    sent = os.urandom(300_000)
    got = b""
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(sent)
            await stream.send_eof()

        nursery.start_soon(send)
        async for data in stream:
            got += data
    assert got == sent


async def test_bytes_behind_the_head_go_through(way: Way) -> None:
    stream = await way.open()
    await stream.send_all(f"CONNECT 127.0.0.1:{way.port} HTTP/1.1\r\nHost: x\r\n\r\nearly".encode())
    got = b""
    while not got.endswith(b"early"):
        got += await stream.receive_some()


@pytest.mark.parametrize("clocks", [replace(PATIENT, head=0.3)])
async def test_a_slow_head_ends(way: Way) -> None:
    slow = await way.open()
    answer = b""
    with trio.fail_after(LATE_SECONDS):
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                while True:
                    await slow.send_all(b"C")
                    await trio.sleep(0.05)

            nursery.start_soon(trickle)
            while data := await slow.receive_some():
                answer += data
            nursery.cancel_scope.cancel()
    assert b"408" in answer


@pytest.mark.parametrize("clocks", [replace(PATIENT, idle=0.5)])
async def test_an_idle_tunnel_ends(way: Way) -> None:
    begun = trio.current_time()
    idle = await way.tunnel()
    with trio.fail_after(LATE_SECONDS):
        assert await idle.receive_some() == b""
    assert trio.current_time() - begun > 0.4


async def test_connections_of_one_worker_are_bounded(way: Way) -> None:
    held = [await way.tunnel() for _ in range(CONNECTIONS)]
    one_more = await way.open()
    await one_more.send_all(f"CONNECT 127.0.0.1:{way.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with trio.move_on_after(0.1) as waiting:
        await one_more.receive_some()
    assert waiting.cancelled_caught
    await held[0].aclose()
    with trio.fail_after(LATE_SECONDS):
        assert b" 200 " in await one_more.receive_some()


async def test_a_destination_that_does_not_answer_is_said(way: Way) -> None:
    way.egress.close("w")
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        folder = way.egress.open("other", Allowlist([Destination("127.0.0.1", port, private=True)]))
        os.chdir(folder)
        stream = await way.open()
        await stream.send_all(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while data := await stream.receive_some():
            answer += data
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway")
    assert b"cannot be reached: " in answer


async def test_closing_ends_connections_and_leaves_nothing(way: Way) -> None:
    stream = await way.tunnel()
    folder = Path.cwd()
    os.chdir("/")
    way.egress.close("w")
    way.egress.close("w")
    with trio.fail_after(LATE_SECONDS):
        assert await stream.receive_some() == b""
    assert not folder.exists()


async def test_a_successor_opens_the_same_place_again_and_removes_the_rest(way: Way) -> None:
    """The folder is what a sandbox has in it, so it must be the same one."""
    folder = Path.cwd()
    before = folder.stat().st_ino
    left = folder.parent / "left"
    left.mkdir()
    (left / "proxy.sock").touch()
    allowed = Allowlist([Destination("127.0.0.1", way.port, private=True)])
    assert way.egress.open("w", allowed) == str(folder)
    way.egress.remove_unused()
    assert folder.stat().st_ino == before
    assert not left.exists()
    stream = await way.tunnel()
    await stream.send_all(b"x")
    assert await stream.receive_some() == b"x"

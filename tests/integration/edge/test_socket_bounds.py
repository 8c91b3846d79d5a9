"""A WebSocket on the wire: the drain, pings, limits, and peers that stall, flood or speak nonsense."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio_websocket import ConnectionClosed
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping, Pong, Request, TextMessage

from edge.settings import EdgeSettings
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, running
from tests.fakes.socket_client import opened

KEY = "echo_ann_acme"
PATH = f"/api/v1/agents/{KEY}/socket"


async def test_a_server_that_stops_says_drain_and_closes(server: Running) -> None:
    await server.world.conversation()
    async with opened(server, PATH) as socket:
        await socket.until("connected")
        server.stopping.set()
        code, _ = await socket.to_end()
    assert code == 1012
    assert socket.frames[-1].event == "drain"
    with trio.fail_after(5):
        await server.stopped.wait()


async def test_a_message_over_the_limit_closes_the_socket_and_is_not_held(server: Running) -> None:
    await server.world.conversation()
    async with opened(server, PATH) as socket:
        with suppress(ConnectionClosed):  # for what it sends behind the limit
            for _ in range(3):
                await socket.send_text("x" * ((1 << 20) + 1))
        assert (await socket.to_end())[0] == 1009
    async with opened(server, PATH) as socket:
        await socket.send_text("\u20ac" * 400_000)  # counted in bytes
        assert (await socket.to_end())[0] == 1009


async def test_binary_messages_close_the_socket(server: Running) -> None:
    await server.world.conversation()
    async with opened(server, PATH) as socket:
        await socket.connection.send_message(b"{}")
        assert await socket.to_end() == (1003, "Messages are text: one JSON object each.")


class Raw:
    """A socket driven frame by frame, for what a well-behaved client never does."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.events: list[Any] = []

    @classmethod
    async def open(cls, server: Running, stream: trio.SocketStream | None = None) -> Raw:
        raw = cls(stream or await server.connect())
        bearer = (b"authorization", f"Bearer {server.world.admin_key}".encode())
        await raw.send(Request(host="x", target=PATH, extra_headers=[bearer]))
        await raw.until(AcceptConnection)
        return raw

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def until(self, kind: type) -> Any:
        with trio.fail_after(10):
            while not (found := [event for event in self.events if isinstance(event, kind)]):
                got = await self.stream.receive_some()
                assert got, self.events
                self.protocol.receive_data(got)
                self.events += self.protocol.events()
        return found[-1]

    async def ended(self) -> None:
        with trio.fail_after(10):
            try:
                while await self.stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass


async def test_pings_come_and_are_answered(hasty: Running) -> None:
    await hasty.world.conversation()
    raw = await Raw.open(hasty)
    await raw.until(Ping)
    await raw.send(Ping(b"are you there"))
    assert bytes((await raw.until(Pong)).payload) == b"are you there"
    await raw.send(CloseConnection(code=1000))
    assert (await raw.until(CloseConnection)).code == 1000
    await raw.ended()
    await raw.stream.aclose()


async def test_a_peer_that_answers_no_ping_is_dropped() -> None:
    world = await EdgeWorld.make(EdgeSettings(ping_seconds=0.1, socket_silence_seconds=0.5))
    ref = await world.conversation()
    async with running(world) as server:
        raw = await Raw.open(server)
        await world.gateway.until_readers(ref, 1)
        await raw.ended()
        await world.gateway.until_readers(ref, 0)
        await raw.stream.aclose()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\xf1\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x81\x02\0\0", 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
    ],
)
async def test_what_is_no_websocket_is_told_so(server: Running, sent: bytes, code: int) -> None:
    await server.world.conversation()
    raw = await Raw.open(server)
    await raw.stream.send_all(sent)
    assert (await raw.until(CloseConnection)).code == code
    await raw.ended()
    await raw.stream.aclose()


HANDSHAKE = (
    f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("without", "behind"),
    [
        pytest.param("Sec-WebSocket-Version: 13\r\n", b"", id="no version"),
        pytest.param("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", id="no key"),
        pytest.param("", b"\x81\x80\0\0\0\0", id="a frame before its answer"),
    ],
)
async def test_a_handshake_that_is_refused_ends(hasty: Running, without: str, behind: bytes) -> None:
    """Its connection, though the client stays, and what had begun for it."""
    ref = await hasty.world.conversation()
    head = HANDSHAKE.replace(without, "") + f"Authorization: Bearer {hasty.world.admin_key}\r\n\r\n"
    async with await hasty.connect() as stream:
        await stream.send_all(head.encode() + behind)
        with trio.fail_after(5):
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "INVALID_REQUEST"
    with trio.fail_after(5):
        await hasty.world.gateway.until_readers(ref, 0)
    with capture_logs() as logs, trio.fail_after(5):
        hasty.stopping.set()
        await hasty.stopped.wait()
    assert logs == [], "nothing had to be cut"


async def test_nothing_is_compressed(server: Running) -> None:
    """A frame of a kilobyte could unfold to a megabyte before any limit is looked at."""
    await server.world.conversation()
    stream = await server.connect()
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    )
    await stream.send_all(head.encode())
    answer = bytes(await stream.receive_some())
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"extensions" not in answer.lower()
    await stream.aclose()


async def test_who_goes_on_sending_behind_the_limit_is_cut_and_not_held() -> None:
    """An endless message: it is refused at the limit, dropped as it comes, and its connection is ended."""
    world = await EdgeWorld.make(EdgeSettings(linger_seconds=0.5, max_message_bytes=64 << 10))
    await world.conversation()
    async with running(world) as server:
        raw = await Raw.open(server)
        began = time.monotonic()
        with suppress(trio.BrokenResourceError):
            while True:
                await raw.send(TextMessage("x" * 60_000, message_finished=False))
                assert time.monotonic() - began < 10
        await raw.stream.aclose()


async def test_readers_that_stall_hold_no_stop_up_and_nothing_piles_up() -> None:
    settings = EdgeSettings(
        send_buffer_bytes=4096, stream_buffer_bytes=16 << 10, stop_grace_seconds=0.2, max_streams_per_conversation=50
    )
    world = await EdgeWorld.make(settings)
    ref = await world.conversation()
    turn = await world.message(ref)
    owner = await world.owner(ref)
    await owner.begin(turn)
    async with running(world) as server:
        stalled = []
        for _ in range(20):
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection = trio.socket.from_stdlib_socket(small)
            await connection.connect(("127.0.0.1", server.port))
            stalled.append(await Raw.open(server, trio.SocketStream(connection)))
        await world.gateway.until_readers(ref, 20)
        async with opened(server, PATH) as reader:
            owner.say("x" * 300_000)
            while sum(len(frame.data["content"]) for frame in reader.frames if frame.event == "output") < 300_000:
                await reader.until("output", 1 + sum(frame.event == "output" for frame in reader.frames))
        began = time.monotonic()
        server.stopping.set()
        with trio.fail_after(10):
            await server.stopped.wait()
        assert time.monotonic() - began < 5
        assert world.gateway.feeds.readers(ref) == 0
        for raw in stalled:
            await raw.stream.aclose()


async def test_calls_that_come_faster_than_they_are_answered_wait_their_turn(server: Running) -> None:
    await server.world.conversation()
    raw = await Raw.open(server)
    for number in range(50):
        call = {"call": "send", "ref": str(number), "content": f"{number}"}
        await raw.send(TextMessage(json.dumps(call)))
    refs: list[str] = []
    with trio.fail_after(10):
        while len(refs) < 50:
            await raw.until(Message)
            texts = [event for event in raw.events if isinstance(event, Message)]
            raw.events = []
            found = [json.loads(event.data) for event in texts if event.message_finished]
            refs += [message["reply"] for message in found if "reply" in message]
    assert refs == [str(number) for number in range(50)]
    assert [turn.content for turn in server.world.gateway.hints] == refs
    await raw.stream.aclose()

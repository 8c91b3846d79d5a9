"""Connections that stall, trickle, idle or come in numbers: each is bounded, and none holds a shutdown up."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from structlog.testing import capture_logs

from edge import metrics
from edge.server import serve
from edge.settings import EdgeSettings
from edge.streams import Streams
from lobu_actors.contract.ids import ConversationRef
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import EventReader, Running, running

SMALL_BUFFERS = EdgeSettings(
    send_buffer_bytes=4096, stream_buffer_bytes=16 << 10, stop_grace_seconds=0.2, max_streams_per_conversation=300
)


@pytest.fixture
async def small() -> AsyncIterator[Running]:
    async with running(await EdgeWorld.make(SMALL_BUFFERS)) as server:
        yield server


async def stalled_stream(server: Running, path: str) -> socket.socket:
    """Asks for a stream and never reads it."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection = trio.socket.from_stdlib_socket(raw)
    raw.setblocking(False)
    await connection.connect(("127.0.0.1", server.port))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\n\r\n"
    await connection.send(request.encode())
    return raw


async def test_two_hundred_stalled_readers_do_not_hold_a_stop_up(small: Running) -> None:
    world = small.world
    ref = await world.conversation()
    turn = await world.message(ref)
    owner = await world.owner(ref)
    await owner.begin(turn)
    path = f"/api/v1/agents/{ref.conversation_id}/events"
    stalled = [await stalled_stream(small, path) for _ in range(200)]
    with trio.fail_after(20):
        await world.gateway.until_readers(ref, 200)
    owner.say("x" * 300_000)
    # Whoever reads gets it all, beside those who do not.
    reader = await EventReader.open(small, path)
    await reader.until(b"x" * 1000 + b'","messageId"', 1)
    small.stopping.set()
    with trio.fail_after(small.world.settings.stalled_reader_seconds - 5):  # the kernel cuts nobody before that
        await small.stopped.wait()
    assert world.gateway.feeds.readers(ref) == 0
    await reader.close()
    for connection in stalled:
        connection.close()


async def test_stalled_readers_do_not_hold_a_cancellation_up() -> None:
    world = await EdgeWorld.make(SMALL_BUFFERS)
    ref = await world.conversation()
    owner = await world.owner(ref)
    await owner.begin(await world.message(ref))
    stalled = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[int]) -> None:
                await serve(world.application, world.settings, stopping=trio.Event(), task_status=task_status)

            server = Running(world, await nursery.start(run), trio.Event(), trio.Event())
            for _ in range(20):
                stalled.append(await stalled_stream(server, f"/api/v1/agents/{ref.conversation_id}/events"))
            await world.gateway.until_readers(ref, 20)
            owner.say("x" * 300_000)
            reader = await EventReader.open(server, f"/api/v1/agents/{ref.conversation_id}/events")
            await reader.until(b"x" * 1000)
            nursery.cancel_scope.cancel()
    await reader.close()
    for connection in stalled:
        connection.close()


async def test_requests_under_way_finish_when_the_server_stops(server: Running) -> None:
    ref = await server.world.conversation()
    entered, go_on = server.world.gateway.hold_accepted()
    answers = []

    async def send() -> None:
        async with server.client() as client:
            answers.append(await client.post(f"/api/v1/agents/{ref.conversation_id}/messages", json={"content": "x"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await entered.wait()
        server.stopping.set()
        go_on.set()
    assert answers[0].status_code == 200
    with pytest.raises(OSError, match="all attempts to connect"):
        await server.connect()


def _asks(server: Running, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\n\r\n".encode()


@pytest.mark.parametrize("tail", ["", "/events"])  # Quart's, and the connection's own
async def test_who_has_just_connected_is_answered_when_the_server_stops(server: Running, tail: str) -> None:
    ref = await server.world.conversation()
    before = metrics.CONNECTIONS_OPEN._value.get()
    async with await server.connect() as stream:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert metrics.CONNECTIONS_OPEN._value.get() == before + 1
        server.stopping.set()
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(_asks(server, f"/api/v1/agents/{ref.conversation_id}{tail}"))
        with trio.fail_after(10):
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("tail", ["", "/events"])
async def test_what_has_come_is_answered_when_the_server_stops(server: Running, tail: str) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        await stream.send_all(_asks(server, "/health/live"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        server.stopping.set()
        sent = _asks(server, f"/api/v1/agents/{ref.conversation_id}{tail}")
        assert os.write(stream.socket.fileno(), sent) == len(sent)  # before anything else may happen
        with trio.fail_after(10):
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 200")


async def test_who_asks_nothing_holds_a_stop_up_for_a_moment(server: Running) -> None:
    async with await server.connect() as silent, await server.connect() as half:
        await half.send_all(b"GET /health")
        async with await server.connect() as idle:
            await idle.send_all(_asks(server, "/health/live"))
            assert (await idle.receive_some()).startswith(b"HTTP/1.1 200")
            server.stopping.set()
            with trio.fail_after(server.world.settings.first_request_seconds / 2):
                assert await idle.receive_some() == b""
        with trio.fail_after(server.world.settings.first_request_seconds + 2):
            assert [await stream.receive_some() for stream in (silent, half)] == [b"", b""]
            await server.stopped.wait()


async def test_stream_slots_are_counted_and_given_back(server: Running) -> None:
    ref = await server.world.conversation()
    other = await server.world.conversation("t2")
    path = f"/api/v1/agents/{ref.conversation_id}/events"
    readers = [await EventReader.open(server, path) for _ in range(5)]
    async with server.client() as client:
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_STREAMS")
        assert int(refused.headers["retry-after"]) > 0
        shown = (await client.get(f"/api/v1/agents/{ref.conversation_id}")).json()
        assert shown["agent"]["hasActiveConnection"] is True
    elsewhere = await EventReader.open(server, f"/api/v1/agents/{other.conversation_id}/events")
    for reader in (*readers, elsewhere):
        await reader.close()
    with trio.fail_after(5):
        await server.world.gateway.until_readers(ref, 0)
    again = await EventReader.open(server, path)
    assert again.head.startswith(b"HTTP/1.1 200")
    await again.close()


@pytest.mark.parametrize(
    "sent", [b"", b"POST /api/v1/agents/k/mess", b"POST /api/v1/agents/k/messages HTTP/1.1\r\nHost: x"]
)
async def test_who_asks_for_nothing_is_closed_when_idle(hasty: Running, sent: bytes) -> None:
    with capture_logs() as logs:
        async with await hasty.connect() as stream:
            await stream.send_all(sent)
            with trio.fail_after(10):
                assert b"".join([data async for data in stream]) == b""
    assert logs == []


@pytest.mark.parametrize(
    "line", [b"GET /health/live", b"POST /api/v1/agents/k/messages", b"GET /api/v1/agents/k/events"]
)
@pytest.mark.parametrize("before", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_trickled_head_is_cut_off(hasty: Running, before: bytes, line: bytes) -> None:
    async with await hasty.connect() as stream:
        await stream.send_all(before)
        with trio.fail_after(10):
            raw = await stream.receive_some() if before else b""
            assert raw.startswith(b"HTTP/1.1 200") or not before
            await stream.send_all(line + b" HTTP/1.1\r\n")
            while True:
                try:
                    await stream.send_all(b"X: y\r\n")
                    with trio.move_on_after(0.05):
                        if not await stream.receive_some():
                            return
                except trio.BrokenResourceError:
                    return


async def test_trickled_body_is_cut_off(hasty: Running) -> None:
    ref = await hasty.world.conversation()
    async with await hasty.connect() as stream:
        await stream.send_all(
            b"POST /api/v1/agents/%b/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
            % (ref.conversation_id.encode(), hasty.world.admin_key.encode())
        )
        raw = b""
        with trio.fail_after(10):
            while b"BODY_TIMEOUT" not in raw:
                await stream.send_all(b" ")
                with trio.move_on_after(0.05):
                    raw += await stream.receive_some()
        assert raw.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("line", [b"GET /", b"POST /api/v1/agents/k/messages", b"GET /api/v1/agents/k/events"])
async def test_oversized_head_is_refused(server: Running, line: bytes) -> None:
    async with await server.connect() as stream:
        await stream.send_all(line + b" HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000)
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    "line", [b"GET /health/live", b"POST /api/v1/agents/k/messages", b"GET /api/v1/agents/k/events"]
)
async def test_oversized_head_is_refused_though_it_comes_whole(server: Running, line: bytes) -> None:
    async with await server.connect() as stream:
        await stream.send_all(line + b" HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
        with trio.fail_after(5):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"POST /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    ],
)
async def test_what_is_no_request_is_refused_as_all_else_is(server: Running, request_: bytes, status: int) -> None:
    async with await server.connect() as stream:
        await stream.send_all(request_)
        with trio.fail_after(5):
            head, _, body = b"".join([data async for data in stream]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-type: application/json\r\n" in head + b"\r\n"
    refusal = json.loads(body)
    assert (refusal["success"], refusal["code"]) == (False, "INVALID_REQUEST")
    assert refusal["error"].endswith(".")


async def test_what_is_refused_to_a_head_request_has_no_body(server: Running) -> None:
    async with await server.connect() as stream:
        await stream.send_all(b"HEAD /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n")
        with trio.fail_after(5):
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_body_of_two_lengths_is_refused_and_what_is_behind_it_is_no_request(server: Running) -> None:
    async with await server.connect() as stream:
        await stream.send_all(
            b"POST /api/v1/agents HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        with trio.fail_after(5):
            answer = b"".join([data async for data in stream])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_connections_leave_files_to_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (8, 8))
    async with running(await EdgeWorld.make()) as server, AsyncExitStack() as strangers:
        streams = [await strangers.enter_async_context(await server.connect()) for _ in range(8)]
        with trio.fail_after(5):
            for stream in streams[6:]:
                assert await stream.receive_some() == b""
        await streams[0].send_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await streams[0].receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_keep_alive_serves_many_requests_and_closes_when_idle(hasty: Running) -> None:
    async with await hasty.connect() as stream:
        with trio.fail_after(20):
            for _ in range(1100):
                await stream.send_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                raw = b""
                while b'"live"}' not in raw:
                    raw += await stream.receive_some()
                    assert raw
            assert await stream.receive_some() == b"", "closed once idle"


async def test_reader_that_leaves_frees_its_feed_at_once(server: Running) -> None:
    ref = await server.world.conversation()
    reader = await EventReader.open(server, f"/api/v1/agents/{ref.conversation_id}/events")
    assert server.world.gateway.feeds.readers(ref) == 1
    await reader.close()
    with trio.fail_after(5):
        await server.world.gateway.until_readers(ref, 0)


@pytest.mark.parametrize("behind", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_nothing_is_left_of_who_leaves_with_a_request_waiting(hasty: Running, behind: bytes) -> None:
    """Behind a stream that Quart answers, so that it is not read."""
    ref = await hasty.world.conversation()
    head = f"GET /api/v1/agents/{ref.conversation_id}/events HTTP/1.1\r\nHost: x\r\nX: a\r\nX: b\r\n"
    async with await hasty.connect() as stream:
        await stream.send_all(f"{head}Authorization: Bearer {hasty.world.admin_key}\r\n\r\n".encode() + behind)
        await hasty.world.gateway.until_readers(ref, 1)
    with trio.fail_after(5):
        await hasty.world.gateway.until_readers(ref, 0)
    await ends_uncut(hasty)


async def test_a_request_that_waits_behind_another_holds_no_stop_up(server: Running) -> None:
    ref = await server.world.conversation()
    entered, go_on = server.world.gateway.hold_accepted()
    head = f"POST /api/v1/agents/{ref.conversation_id}/messages HTTP/1.1\r\nHost: x\r\nX: a\r\nX: b\r\n"
    head += f"Authorization: Bearer {server.world.admin_key}\r\nContent-Type: application/json\r\n"
    async with await server.connect() as stream:
        await stream.send_all(f'{head}Content-Length: 15\r\n\r\n{{"content":"x"}}'.encode() * 2)
        await entered.wait()
        with capture_logs() as logs:
            server.stopping.set()
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
            with trio.fail_after(5):
                answer = b"".join([data async for data in stream])
                await server.stopped.wait()
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert logs == []


async def ends_uncut(server: Running) -> None:
    with capture_logs() as logs, trio.fail_after(5):
        server.stopping.set()
        await server.stopped.wait()
    assert logs == []


async def test_http_2_without_tls_is_not_spoken(server: Running) -> None:
    """Neither with prior knowledge nor by an upgrade, which is passed over."""
    async with await server.connect() as stream:
        await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        with trio.fail_after(10):
            answer = b""
            while data := await stream.receive_some():
                answer += data
    assert answer.startswith(b"HTTP/1.1 505 ")
    async with await server.connect() as stream:
        await stream.send_all(
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        with trio.fail_after(10):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


def test_streams_count_per_process() -> None:
    streams = Streams(EdgeSettings(max_streams=1))
    one, two = ConversationRef("o", "a", "1"), ConversationRef("o", "a", "2")
    with streams.place(one):
        with pytest.raises(Exception, match="as many open streams"), streams.place(two):
            pass
        assert len(streams) == 1
    assert len(streams) == 0

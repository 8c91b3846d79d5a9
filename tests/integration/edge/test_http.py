"""What we read and write of HTTP/1 ourselves (`edge.http_connection`), with h11 at the other end: messages and event
streams, and how they share a connection with what Hypercorn answers."""

from __future__ import annotations

import json
from typing import Any

import attrs
import h11
import pytest
import trio

from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.errors import StoreUnavailable
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, parse_frames, running


def message(server: Running, ref: ConversationRef, content: str, *headers: str, version: str = "1.1") -> bytes:
    body = json.dumps({"content": content, "messageId": content}).encode()
    lines = (
        f"POST /api/v1/agents/{ref.conversation_id}/messages HTTP/{version}",
        "Host: x",
        f"Authorization: Bearer {server.world.admin_key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> Any:
        return json.loads(self.body)["messageId"]


class Reader:
    """Reads answers to requests that were sent as bytes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._rest = b""

    async def answer(self, method: str = "POST") -> Answer:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self._rest or await self._stream.receive_some())
        head, body = None, b""
        with trio.fail_after(10):
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    connection.receive_data(await self._stream.receive_some())
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
        self._rest = connection.trailing_data[0]
        assert head is not None
        return Answer(head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body)

    async def is_at_end(self) -> bool:
        with trio.fail_after(5):
            return not self._rest and not await self._stream.receive_some()


def stream_request(server: Running, ref: ConversationRef, query: str = "") -> bytes:
    path = f"/api/v1/agents/{ref.conversation_id}/events{query}"
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\n\r\n".encode()


def contents(server: Running) -> list[str]:
    return [turn.content for turn in server.world.gateway.hints]


async def test_messages_that_come_together_are_answered_one_after_the_other(server: Running) -> None:
    ref = await server.world.conversation()
    sent = [str(number) for number in range(10)]
    async with await server.connect() as stream:
        await stream.send_all(b"".join(message(server, ref, content) for content in sent))
        reader = Reader(stream)
        answers = [await reader.answer() for _ in sent]
    assert [answer.message_id for answer in answers] == sent
    assert contents(server) == sent
    for answer in answers:
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["date"].endswith(" GMT")
        assert "connection" not in answer.headers


async def test_a_message_that_comes_in_pieces_is_taken_in_once(server: Running) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        reader = Reader(stream)
        for content in ("first", "second"):
            raw = message(server, ref, content)
            for piece in (raw[:40], raw[40:-9], raw[-9:-4], raw[-4:]):
                await stream.send_all(piece)
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await reader.answer()).message_id == content
    assert contents(server) == ["first", "second"]


@pytest.mark.parametrize(("version", "header"), [("1.0", "X: y"), ("1.1", "Connection: close")])
async def test_who_wants_no_more_than_one_answer_gets_it_and_the_end(
    server: Running, version: str, header: str
) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        await stream.send_all(message(server, ref, "only", header, version=version))
        reader = Reader(stream)
        answer = await reader.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await reader.is_at_end()


async def test_a_refused_message_leaves_the_connection_as_it_was(server: Running) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        await stream.send_all(message(server, ref, " ") + message(server, ref, "fit"))
        reader = Reader(stream)
        assert (await reader.answer()).status == 400
        assert (await reader.answer()).message_id == "fit"
    assert contents(server) == ["fit"]


async def test_a_connection_ends_after_as_many_messages_as_it_may_have() -> None:
    async with running(await EdgeWorld.make(EdgeSettings(keep_alive_max_requests=2))) as server:
        ref = await server.world.conversation()
        async with await server.connect() as stream:
            reader = Reader(stream)
            await stream.send_all(message(server, ref, "a"))
            assert "connection" not in (await reader.answer()).headers
            await stream.send_all(message(server, ref, "b"))
            assert (await reader.answer()).headers["connection"] == "close"
            assert await reader.is_at_end()


@pytest.mark.parametrize("size", [1, 15, 16, 40_000])
async def test_a_stream_is_whole_in_chunks(server: Running, size: int) -> None:
    ref = await server.world.conversation()
    turn = await server.world.message(ref, message_id="m")
    owner = await server.world.owner(ref)
    await owner.begin(turn)
    found: list[Answer] = []

    async def read(stream: trio.SocketStream) -> None:
        found.append(await Reader(stream).answer("GET"))

    async with await server.connect() as stream, trio.open_nursery() as nursery:
        await stream.send_all(stream_request(server, ref, "?messageId=m"))
        nursery.start_soon(read, stream)
        await server.world.gateway.until_readers(ref, 1)
        for letter in "xyz":
            owner.say(letter * size)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await owner.end(turn)
    frames = parse_frames(found[0].body)
    assert found[0].headers["transfer-encoding"] == "chunked"
    assert "".join(frame.data["content"] for frame in frames if frame.event == "output") == "".join(
        letter * size for letter in "xyz"
    )
    assert frames[-1].event == "complete"


async def test_the_head_of_a_stream_is_all_that_a_head_request_gets(server: Running) -> None:
    ref = await server.world.conversation()
    request = f"HEAD /api/v1/agents/{ref.conversation_id}/events HTTP/1.1\r\nHost: x\r\n"
    async with await server.connect() as stream:
        await stream.send_all(f"{request}Authorization: Bearer {server.world.admin_key}\r\n\r\n".encode())
        reader = Reader(stream)
        answer = await reader.answer("HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert await reader.is_at_end()


LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


async def ended(server: Running, ref: ConversationRef) -> None:
    """The first message sent to the server has been answered."""
    owner = await server.world.owner(ref)
    turn = server.world.gateway.hints[0]
    await owner.begin(turn)
    await owner.end(turn)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_connection_takes_requests_of_all_kinds(server: Running, at_once: bool) -> None:
    ref = await server.world.conversation()
    requests = [message(server, ref, "a"), LIVE, message(server, ref, "b"), LIVE, message(server, ref, "c")]
    async with await server.connect() as stream:
        reader, answers = Reader(stream), []
        if at_once:
            await stream.send_all(b"".join(requests))
        for request in requests:
            if not at_once:
                await stream.send_all(request)
            answers.append(await reader.answer(request[:4].decode().strip()))
        assert [answer.status for answer in answers] == [200] * len(requests)
        assert [answer.message_id for answer in answers[::2]] == ["a", "b", "c"]
        await ended(server, ref)
        await stream.send_all(stream_request(server, ref, "?messageId=a"))
        last = await reader.answer("GET")
        assert [frame.event for frame in parse_frames(last.body)][-1] == "complete"
        assert await reader.is_at_end()


async def test_a_stream_whose_head_comes_in_pieces(server: Running) -> None:
    ref = await server.world.conversation()
    await server.world.message(ref)
    raw = stream_request(server, ref)
    async with await server.connect() as stream:
        for piece in (raw[:-30], raw[-30:-2], raw[-2:]):
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(10):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_what_is_sent_behind_a_stream_is_no_request(server: Running) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        await stream.send_all(stream_request(server, ref) + message(server, ref, "lost"))
        await server.world.gateway.until_readers(ref, 1)
        await stream.send_all(message(server, ref, "lost, too"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert contents(server) == []
    with trio.fail_after(5):
        await server.world.gateway.until_readers(ref, 0)


@pytest.mark.parametrize("cut", [1, 60])
async def test_who_leaves_in_the_middle_of_a_message_has_sent_none(server: Running, cut: int) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        await stream.send_all(message(server, ref, "x")[:-cut])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_eof()
        with trio.fail_after(5):
            answer = b"".join([data async for data in stream])
    assert not answer.startswith(b"HTTP/1.1 200")
    assert contents(server) == []


async def test_an_empty_line_behind_a_message_is_passed_over(server: Running) -> None:
    ref = await server.world.conversation()
    async with await server.connect() as stream:
        reader = Reader(stream)
        for request in (message(server, ref, "a"), message(server, ref, "b"), LIVE):
            await stream.send_all(request if request is LIVE else request + b"\r\n")
            assert (await reader.answer(request[:4].decode().strip())).status == 200
    assert contents(server) == ["a", "b"]


async def test_a_stranger_is_refused_before_the_body_is_here() -> None:
    async with running(await EdgeWorld.make(EdgeSettings(body_seconds=60, linger_seconds=0.1))) as server:
        ref = await server.world.conversation()
        raw = message(server, ref, "x" * 1000).replace(b"Bearer ", b"Bearer no")
        async with await server.connect() as stream:
            await stream.send_all(raw[:-500])
            reader = Reader(stream)
            with trio.fail_after(20):
                answer = await reader.answer()
            assert (answer.status, answer.headers["connection"]) == (401, "close")
            assert await reader.is_at_end()


async def test_a_refusal_is_kept_back_for_the_rest_of_the_body(server: Running) -> None:
    """Then the connection goes on behind it."""
    ref = await server.world.conversation()
    raw = message(server, ref, "x" * 1000).replace(b"Bearer ", b"Bearer no")
    async with await server.connect() as stream:
        reader = Reader(stream)
        await stream.send_all(raw[:-500])
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(raw[-500:] + LIVE)
        answer = await reader.answer()
        assert answer.status == 401
        assert "connection" not in answer.headers
        assert (await reader.answer("GET")).status == 200


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_stream_that_breaks_does_not_look_finished(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    world = await EdgeWorld.make(EdgeSettings(store_patience_seconds=0.1, ping_seconds=0.1))
    ref = await world.conversation()
    await world.message(ref)

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(world.store, "read_events", away)
    async with running(world) as server, await server.connect() as stream:
        await stream.send_all(stream_request(server, ref).replace(b"/1.1", f"/{version}".encode()))
        answer, is_reset = b"", False
        with trio.fail_after(10):
            try:
                async for data in stream:
                    answer += data
            except trio.BrokenResourceError:
                is_reset = True
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert is_reset if version == "1.0" else not answer.endswith(b"0\r\n\r\n")

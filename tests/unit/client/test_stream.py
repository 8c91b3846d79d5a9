"""The event stream over connections that are cut, drained, repeated and refused: exact text, bounded retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from lobu_actors.client import Client, ClientEvent, RequestRefused, StreamLost, UnexpectedAnswer

Server = Any  # the fixture's class; tests/ is no package
Connection = Any


def out(content: str) -> dict[str, Any]:
    return {"type": "delta", "content": content, "messageId": "m", "timestamp": 1}


def done(text: str, message_id: str = "m") -> dict[str, Any]:
    return {"type": "complete", "messageId": message_id, "processedMessageIds": [message_id], "finalText": text}


async def collect(client: Client, message_id: str | None = "m", since: str | None = None) -> list[ClientEvent]:
    with trio.fail_after(10):
        async with client.stream("k", message_id=message_id, since=since) as events:
            return [event async for event in events]


def shown(events: list[ClientEvent]) -> str:
    """What a terminal would show: content, forgotten at each restart."""
    text = ""
    for event in events:
        text = "" if event.type == "restart" else text + (event.content if event.type == "output" else "")
    return text


async def test_one_connection(server: Server) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.raw(b": ping\n\n")
        await connection.send("output", out("Häl\u2028"), "0.1.4")
        await connection.send("output", out("lo"), "0.1.6")
        await connection.send("complete", done("Häl\u2028lo"), "1")

    server.scripts = [script]
    async with server.client() as client:
        events = await collect(client)
    assert [event.type for event in events] == ["output", "output", "complete"]
    assert shown(events) == events[-1].final_text == "Häl\u2028lo"
    request = server.requests[0]
    assert request.target == "/api/v1/agents/k/events?messageId=m"
    assert request.headers["authorization"] == "Bearer lobu_test"
    assert "last-event-id" not in request.headers


async def test_cut_in_the_middle_of_a_frame_and_a_character(server: Server) -> None:
    async def first(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("ab"), "0.1.2")
        await connection.raw('event: output\nid: 0.1.3\ndata: {"content": "é'.encode()[:-1])

    async def second(connection: Connection) -> None:
        assert connection.request.headers["last-event-id"] == "0.1.2"
        await connection.head()
        await connection.send("output", out("éf"), "0.1.4")
        await connection.send("complete", done("abéf"), "1")

    server.scripts = [first, second]
    async with server.client() as client:
        events = await collect(client)
    assert shown(events) == "abéf"
    assert [event.terminal for event in events] == [False, False, True]


async def test_clean_end_before_the_terminal_event_is_a_cut(server: Server) -> None:
    async def nothing(connection: Connection) -> None:
        await connection.head()

    async def rest(connection: Connection) -> None:
        await connection.head()
        await connection.send("complete", done("x"), "1")

    server.scripts = [nothing, nothing, rest]
    async with server.client() as client:
        events = await collect(client)
    assert [event.type for event in events] == ["complete"]
    assert len(server.requests) == 3


async def test_reset_connection(server: Server) -> None:
    async def reset(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("ab"), "0.1.2")
        linger = (1).to_bytes(4, "little") + bytes(4)
        connection.stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async def rest(connection: Connection) -> None:
        await connection.head()
        await connection.send("complete", done("abc"), "1")

    server.scripts = [reset, rest]
    async with server.client() as client:
        events = await collect(client)
    assert events[-1].final_text == "abc"


async def test_repeats_and_overlaps_are_shown_once(server: Server) -> None:
    async def first(connection: Connection) -> None:
        await connection.head()
        await connection.send("question", {"questionId": "q", "prompt": "?", "options": None, "messageId": "m"}, "1")
        await connection.send("output", out("abc"), "1.1.3")

    async def second(connection: Connection) -> None:
        await connection.head()
        await connection.send("question", {"questionId": "q", "prompt": "?", "options": None, "messageId": "m"}, "1")
        await connection.send("output", out("ab"), "1.1.2")
        await connection.send("output", out("bcde"), "1.1.5")
        await connection.send("agent-error", {"messageId": "m", "error": "e", "errorCode": "X"}, "2")
        await connection.send("error", {"messageId": "m", "error": "e", "errorCode": "X"}, "2")

    server.scripts = [first, second]
    async with server.client() as client:
        events = await collect(client)
    assert [event.type for event in events] == ["question", "output", "output", "agent-error"]
    assert shown(events) == "abcde"


async def test_restart_forgets_the_text(server: Server) -> None:
    async def first(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("wrong"), "0.1.5")
        await connection.send("restart", {"messageId": "m", "attempt": 2, "reason": "host lost"}, "1")
        await connection.send("output", out("ri"), "1.2.2")

    async def second(connection: Connection) -> None:
        assert connection.request.headers["last-event-id"] == "1.2.2"
        await connection.head()
        await connection.send("output", out("late"), "1.1.9")
        await connection.send("output", out("ght"), "1.2.5")
        await connection.send("complete", done("right"), "2")

    server.scripts = [first, second]
    async with server.client() as client:
        events = await collect(client)
    assert shown(events) == "right"


async def test_new_attempt_without_restart_makes_one(server: Server) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("old"), "0.1.3")
        await connection.send("output", out("new"), "0.2.3")
        await connection.send("complete", done("new"), "1")

    server.scripts = [script]
    async with server.client() as client:
        events = await collect(client)
    assert [event.type for event in events] == ["output", "restart", "output", "complete"]
    assert shown(events) == "new"


async def test_drain_reconnects(server: Server) -> None:
    async def draining(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("a"), "0.1.1")
        await connection.send("drain", {"reconnectInMs": 1})
        await connection.stay()

    async def other(connection: Connection) -> None:
        assert connection.request.headers["last-event-id"] == "0.1.1"
        await connection.head()
        await connection.send("output", out("b"), "0.1.2")
        await connection.send("complete", done("ab"), "1")

    server.scripts = [draining, other]
    async with server.client() as client:
        assert shown(await collect(client)) == "ab"


async def test_gap_is_passed_on_and_the_rest_follows(server: Server) -> None:
    async def script(connection: Connection) -> None:
        assert connection.request.headers["last-event-id"] == "3"
        await connection.head()
        await connection.send("gap", {"from": 3, "to": 9, "reason": "retention"})
        await connection.send("complete", done("other", "o"), "10")
        await connection.send("closed", {"reason": "deleted"}, "11")

    server.scripts = [script]
    async with server.client() as client:
        events = await collect(client, message_id=None, since="3")
    assert [event.type for event in events] == ["gap", "complete", "closed"]


async def test_lost_deltas_are_known_and_the_terminal_brings_the_text(server: Server) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("a"), "0.1.1")
        await connection.send("output", out("d"), "0.1.4")
        await connection.send("complete", done("abcd"), "1")

    server.scripts = [script]
    async with server.client() as client, client.stream("k", message_id="m") as events:
        assert (await anext(events)).content == "a"
        assert (events.last_id, events.transcript.whole("m")) == ("0.1.1", True)
        await anext(events)
        assert not events.transcript.whole("m")
        assert (await anext(events)).final_text == "abcd"


async def test_gives_up_after_so_many_attempts_without_anything_new(server: Server) -> None:
    async def stuck(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("a"), "0.1.1")
        await connection.send("status", {"type": "status", "status": "working", "messageId": "m"})

    server.scripts = [stuck] * 50
    async with server.client() as client:
        with pytest.raises(StreamLost, match=r"did not come back in 4 attempts \(the server ended it\)") as caught:
            await collect(client)
    assert caught.value.last_id == "0.1.1"
    assert len(server.requests) == 4


async def test_progress_sets_the_count_back(server: Server) -> None:
    def step(length: int) -> Callable[[Connection], Any]:
        async def script(connection: Connection) -> None:
            await connection.head()
            await connection.send("output", out("x"), f"0.1.{length}")

        return script

    async def end(connection: Connection) -> None:
        await connection.head()
        await connection.send("complete", done("x" * 12), "1")

    server.scripts = [*(step(length) for length in range(1, 13)), end]
    async with server.client() as client:
        assert shown(await collect(client)) == "x" * 12


@pytest.mark.parametrize(("status", "attempts"), [(401, 1), (403, 1), (404, 1), (400, 1), (503, 4), (429, 4), (502, 4)])
async def test_refusals(server: Server, status: int, attempts: int) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.json(status, {"success": False, "error": "No, because.", "code": "WHY"}, "Retry-After: 0\r\n")

    server.scripts = [refuse] * 20
    async with server.client() as client:
        with pytest.raises((RequestRefused, StreamLost), match="No, because"):
            await collect(client)
    assert len(server.requests) == attempts


async def test_server_that_is_gone_is_given_up(server: Server) -> None:
    async with Client("http://127.0.0.1:9", retry=server.client()._retry) as client:
        with pytest.raises(StreamLost, match=r"nothing answers at http://127\.0\.0\.1:9"):
            await collect(client)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: nonsense\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: output\nid: ?\ndata: {}\n\n",
    ],
)
async def test_something_else_answers(server: Server, answer: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.raw(answer)

    server.scripts = [script]
    async with server.client() as client:
        with pytest.raises(UnexpectedAnswer):
            await collect(client)


async def test_no_content_is_the_end(server: Server) -> None:
    async def script(connection: Connection) -> None:
        await connection.raw(b"HTTP/1.1 204 No Content\r\n\r\n")

    server.scripts = [script]
    async with server.client() as client:
        assert await collect(client, message_id=None, since="9") == []


async def test_left_early_and_cancelled(server: Server) -> None:
    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send("output", out("a"), "0.1.1")
        await connection.stay()

    server.scripts = [script, script, script]
    async with server.client() as client:
        async with client.stream("k") as events:
            await anext(events)
        forgotten = client.stream("k")
        await anext(forgotten)
        with trio.move_on_after(0.05) as scope:
            async with client.stream("k") as events:
                await anext(events)
                await anext(events)
        assert scope.cancelled_caught


def test_on_asyncio() -> None:
    requests = 0

    async def main() -> str:
        async def serve(stream: Any) -> None:
            nonlocal requests
            async with stream:
                await stream.receive(65536)
                requests += 1
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1\n"
                await stream.send(head + b'event: output\nid: 0.1.1\ndata: {"content":"a","messageId":"m"}\n\n')
                if requests == 2:
                    await stream.send(b'event: complete\nid: 1\ndata: {"messageId":"m","finalText":"a"}\n\n')
                    await anyio.sleep(5)  # the client leaves; it does not wait for this

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            async with Client(f"http://127.0.0.1:{port}") as client, client.stream("k", message_id="m") as events:
                text = [event.content or event.final_text async for event in events]
            group.cancel_scope.cancel()
        await listener.aclose()
        return ",".join(text)

    assert anyio.run(main, backend="asyncio") == "a,a"
    assert requests == 2

"""The client's calls: what goes over the wire, what is repeated, and what an error says."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from lobu_actors.client import Client, RequestRefused, ServerAway, UnexpectedAnswer

Server = Any
Connection = Any


async def test_open_and_send(server: Server) -> None:
    async def opened(connection: Connection) -> None:
        await connection.json(201, {"agentId": "a_u_o", "token": "t", "expiresAt": 5, "threadId": "x"})

    async def sent(connection: Connection) -> None:
        body = json.loads(connection.request.body)
        await connection.json(200, {"messageId": body["messageId"], "turnId": "t1", "queued": True, "position": 2})

    server.scripts = [opened, sent]
    async with server.client() as client:
        conversation = await client.open("a", user="u", new=True)
        receipt = await client.send(conversation.key, "hi", on_busy="merge", extra=1)
    assert (conversation.key, conversation.thread) == ("a_u_o", "x")
    assert json.loads(server.requests[0].body) == {"agentId": "a", "userId": "u", "forceNew": True}
    assert server.requests[1].target == "/api/v1/agents/a_u_o/messages"
    body = json.loads(server.requests[1].body)
    assert body == {"content": "hi", "onBusy": "merge", "extra": 1, "messageId": receipt.message_id}
    assert (receipt.turn_id, receipt.queued, receipt.position) == ("t1", True, 2)


async def test_send_repeats_with_the_same_message_id(server: Server) -> None:
    async def lost(connection: Connection) -> None:
        pass

    async def busy(connection: Connection) -> None:
        await connection.json(503, {"code": "DRAINING", "error": "x"}, "Retry-After: 0\r\n")

    async def sent(connection: Connection) -> None:
        await connection.json(200, {"turnId": "t1"})

    server.scripts = [lost, busy, sent]
    async with server.client() as client:
        receipt = await client.send("k", "hi")
    assert {json.loads(request.body)["messageId"] for request in server.requests} == {receipt.message_id}
    assert len(server.requests) == 3


async def test_other_calls(server: Server) -> None:
    async def fine(connection: Connection) -> None:
        await connection.json(200, {"success": True, "agent": {"status": "idle"}})

    server.scripts = [fine] * 7
    async with server.client() as client:
        await client.answer("k", "q/1", "yes")
        await client.cancel("k", "m")
        await client.reset("k")
        await client.close("k")
        assert await client.info("k") == {"status": "idle"}
        await client.history("k", cursor="c", limit=5)
        assert await client.ready()
    base = "/api/v1/agents/k"
    assert [(request.method, request.target) for request in server.requests] == [
        ("POST", f"{base}/questions/q%2F1/answer"),
        ("POST", f"{base}/cancel"),
        ("POST", f"{base}/reset"),
        ("DELETE", base),
        ("GET", base),
        ("GET", f"{base}/session/messages?limit=5&cursor=c"),
        ("GET", "/health/ready"),
    ]


async def test_an_answer_whose_receipt_was_lost_is_ours(server: Server) -> None:
    async def lost(connection: Connection) -> None:
        pass

    async def answered(connection: Connection) -> None:
        await connection.json(409, {"code": "QUESTION_ANSWERED", "error": "Answered already."})

    server.scripts = [lost, answered, answered]
    async with server.client() as client:
        await client.answer("k", "q", "yes")
        with pytest.raises(RequestRefused, match="Answered already"):
            await client.answer("k", "q", "yes")


async def test_calls_that_act_are_repeated_and_those_that_read_are_not(server: Server) -> None:
    async def busy(connection: Connection) -> None:
        await connection.json(503, {"code": "STORE_UNAVAILABLE", "error": "Not now."}, "Retry-After: 0\r\n")

    async def fine(connection: Connection) -> None:
        await connection.json(200, {"success": True})

    async with server.client() as client:
        for call in (client.cancel("k"), client.answer("k", "q", "a"), client.close("k"), client.reset("k")):
            server.scripts, server.requests = [busy, fine], []
            await call
            assert len({request.body for request in server.requests}) == 1
            assert len(server.requests) == 2
        for call in (client.open(), client.info("k"), client.history("k")):
            server.scripts, server.requests = [busy, fine], []
            with pytest.raises(RequestRefused, match="Not now"):
                await call
            assert len(server.requests) == 1


async def test_errors_are_sentences(server: Server) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.json(404, {"error": "This organization has no default agent.", "code": "NO_DEFAULT_AGENT"})

    async def garbage(connection: Connection) -> None:
        await connection.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async def bare(connection: Connection) -> None:
        await connection.raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nhi")

    server.scripts = [refuse, garbage, bare]
    async with server.client() as client:
        with pytest.raises(RequestRefused, match="no default agent") as caught:
            await client.open()
        assert (caught.value.status, caught.value.code) == (404, "NO_DEFAULT_AGENT")
        with pytest.raises(UnexpectedAnswer, match="is it a Lobu gateway"):
            await client.open()
        with pytest.raises(RequestRefused, match="answered 404 Not Found"):
            await client.open()
    async with Client("http://127.0.0.1:9") as client:
        with pytest.raises(ServerAway, match=r"nothing answers at http://127\.0\.0\.1:9"):
            await client.open()
    async with Client("http://no-such-host.invalid") as client:
        with pytest.raises(ServerAway, match=r"the host of http://no-such-host\.invalid is not known"):
            await client.open()


async def test_an_address_that_should_begin_with_http_alone() -> None:
    async def plain(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, plain, 0, host="127.0.0.1"))
        async with Client(f"https://127.0.0.1:{listener.socket.getsockname()[1]}") as client:
            with pytest.raises(ServerAway, match=r"what answers at https://127\.0\.0\.1:\d+ does not speak TLS"):
                await client.open()
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes a certificate, is not there (apt-get install openssl)")
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *files]
    await trio.run_process([*made, "-subj", "/CN=localhost", "-days", "2"], capture_stderr=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")

    async def greet(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_ssl_over_tcp, greet, 0, context)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        async with Client(f"https://localhost:{port}") as client:
            with pytest.raises(ServerAway, match=rf"the certificate of https://localhost:{port} is not trusted \(self"):
                await client.open()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8787", "ftp://x", "http://", "http://x:99999999"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="is no address of a gateway"):
        Client(url)

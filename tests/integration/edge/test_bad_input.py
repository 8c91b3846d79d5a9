"""Every kind of bad request gets its own status and code, in the error form, and never a 500."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import trio

from edge.tokens import AUDIENCE, ISSUER, JwtKeys
from lobu_actors.contract.ids import ConversationRef
from tests.fakes.edge_world import SECRET
from tests.fakes.http_server import Running

KEY = "echo_ann_acme"
MESSAGES = f"/api/v1/agents/{KEY}/messages"
EVENTS = f"/api/v1/agents/{KEY}/events"
JSON = {"Content-Type": "application/json"}


def row(
    method: str,
    path: str,
    status: int,
    code: str,
    *,
    body: bytes | str | Any = None,
    credential: str = "admin",
    **headers: str,
) -> Any:
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return pytest.param(
        method, path, raw, sent, credential, status, code, id=f"{method} {path[-40:]} {code} {credential}"
    )


def message(status: int, code: str, body: Any, **headers: str) -> Any:
    return row("POST", MESSAGES, status, code, body=body, **headers)


ROWS = [
    # bodies
    message(400, "INVALID_JSON", b"{"),
    message(400, "INVALID_JSON", b""),
    message(400, "INVALID_JSON", b"[]"),
    message(400, "INVALID_JSON", b"null"),
    message(400, "INVALID_JSON", b'{"content": NaN}'),
    message(400, "INVALID_JSON", b'\xef\xbb\xbf{"content":"x"}'),
    message(400, "INVALID_JSON", b'{"content":"\xff"}'),
    message(400, "INVALID_JSON", b'{"content":"x"} tail'),
    message(400, "INVALID_FIELD", b"[" * 5000),
    message(400, "INVALID_FIELD", b'{"content":"x","a":' + b"[" * 100 + b"]" * 100 + b"}"),
    message(400, "INVALID_FIELD", b'{"content":"x","a":' + b"9" * 40 + b"}"),
    message(400, "INVALID_TEXT", b'{"content":"a\\u0000b"}'),
    message(400, "INVALID_TEXT", b'{"content":"\\ud800"}'),
    message(400, "INVALID_TEXT", b'{"content":"x","deep":{"list":["\\udfff"]}}'),
    message(400, "INVALID_TEXT", b'{"content":"x","\\u0000":1}'),
    message(413, "BODY_TOO_LARGE", b'{"content":"' + b"x" * (2 << 20) + b'"}'),
    # fields
    message(400, "INVALID_FIELD", {}),
    message(400, "INVALID_FIELD", {"content": ""}),
    message(400, "INVALID_FIELD", {"content": " \n"}),
    message(400, "INVALID_FIELD", {"content": 5}),
    message(400, "INVALID_FIELD", {"content": ["x"]}),
    message(400, "INVALID_FIELD", {"content": "x", "messageId": ""}),
    message(400, "INVALID_FIELD", {"content": "x", "messageId": "a b"}),
    message(400, "INVALID_FIELD", {"content": "x", "messageId": "a" * 201}),
    message(400, "INVALID_FIELD", {"content": "x", "messageId": 7}),
    message(400, "INVALID_FIELD", {"content": "x", "onBusy": "later"}),
    message(400, "INVALID_FIELD", {"content": "x", "onBusy": ["reject"]}),
    row("POST", "/api/v1/agents", 400, "INVALID_FIELD", body={"agentId": "a b"}),
    row("POST", "/api/v1/agents", 400, "INVALID_FIELD", body={"userId": 5}),
    row("POST", "/api/v1/agents", 400, "INVALID_FIELD", body={"thread": "x" * 129}),
    row("POST", "/api/v1/agents", 400, "INVALID_FIELD", body={"forceNew": "yes"}),
    row("POST", "/api/v1/agents", 404, "AGENT_NOT_FOUND", body={"agentId": "nope"}),
    row("POST", "/api/v1/agents", 404, "NO_DEFAULT_AGENT", body={}, credential="bare"),
    row("POST", "/api/v1/agents", 403, "FORBIDDEN", body={"userId": "bob"}, credential="user"),
    row("POST", f"/api/v1/agents/{KEY}/questions/q1/answer", 400, "INVALID_FIELD", body={}),
    row("POST", f"/api/v1/agents/{KEY}/cancel", 400, "INVALID_FIELD", body={"messageId": "a b"}),
    # content types
    message(415, "UNSUPPORTED_MEDIA_TYPE", b"content=x", Content_Type="application/x-www-form-urlencoded"),
    message(400, "INVALID_FIELD", b"--x--", Content_Type="multipart/form-data; boundary=x"),
    message(415, "UNSUPPORTED_MEDIA_TYPE", b"--x--", Content_Type="multipart/mixed; boundary=x"),
    message(415, "UNSUPPORTED_MEDIA_TYPE", {"content": "x"}, Content_Type="text/plain"),
    message(415, "UNSUPPORTED_MEDIA_TYPE", gzip.compress(b'{"content":"x"}'), Content_Encoding="gzip"),
    message(415, "UNSUPPORTED_MEDIA_TYPE", b"", Content_Type="multipart/form-data; boundary=x", Content_Encoding="br"),
    message(400, "INVALID_FIELD", {"content": ""}, Content_Encoding="identity"),
    # places
    row("GET", "/nope", 404, "NOT_FOUND"),
    row("GET", "/api/v1/agents/", 404, "NOT_FOUND"),
    row("GET", "/lobu//api/v1/agents/x", 404, "NOT_FOUND"),
    row("GET", "/lobu/none", 404, "NOT_FOUND"),
    row("PUT", MESSAGES, 405, "METHOD_NOT_ALLOWED"),
    row("GET", MESSAGES, 405, "METHOD_NOT_ALLOWED"),
    row("BREW", EVENTS, 405, "METHOD_NOT_ALLOWED"),
    row("GET", "/api/v1/agents/unknown", 404, "CONVERSATION_NOT_FOUND"),
    row("GET", "/api/v1/agents/a%00b", 404, "CONVERSATION_NOT_FOUND"),
    row("GET", "/api/v1/agents/%ff%fe", 404, "CONVERSATION_NOT_FOUND"),
    row("GET", "/api/v1/agents/" + "x" * 600, 404, "CONVERSATION_NOT_FOUND"),
    row("POST", "/api/v1/agents/unknown/messages", 404, "CONVERSATION_NOT_FOUND", body={"content": "x"}),
    row("DELETE", "/api/v1/agents/unknown", 404, "CONVERSATION_NOT_FOUND"),
    # streams
    row("GET", EVENTS + "?since=x", 400, "INVALID_CURSOR"),
    row("GET", EVENTS + "?since=1.2", 400, "INVALID_CURSOR"),
    row("GET", EVENTS + "?since=%00", 400, "INVALID_CURSOR"),
    row("GET", EVENTS + "?since=99999999999999999999", 400, "INVALID_CURSOR"),
    row("GET", EVENTS + "?since=1", 400, "INVALID_CURSOR", Last_Event_ID="-1"),
    row("GET", EVENTS + "?messageId=nope", 404, "MESSAGE_NOT_FOUND"),
    row("GET", EVENTS + "?messageId=%00", 400, "INVALID_FIELD"),
    # tenants and users
    row("GET", f"/api/v1/agents/{KEY}", 404, "CONVERSATION_NOT_FOUND", credential="other"),
    row("GET", EVENTS, 404, "CONVERSATION_NOT_FOUND", credential="other"),
    row("POST", MESSAGES, 404, "CONVERSATION_NOT_FOUND", body={"content": "x"}, credential="other"),
    row("DELETE", f"/api/v1/agents/{KEY}", 404, "CONVERSATION_NOT_FOUND", credential="other"),
    row("POST", f"/api/v1/agents/{KEY}/cancel", 404, "CONVERSATION_NOT_FOUND", body={}, credential="other"),
    row("GET", "/api/v1/agents/echo_bob_acme", 404, "CONVERSATION_NOT_FOUND", credential="user"),
    row("GET", "/api/v1/agents/echo_bob_acme", 403, "FORBIDDEN", credential="token"),
    row("POST", "/api/v1/agents", 403, "FORBIDDEN", body={}, credential="token"),
    row("GET", f"/api/v1/agents/{KEY}", 404, "CONVERSATION_NOT_FOUND", credential="token of another agent"),
    row("GET", f"/api/v1/agents/{KEY}", 404, "CONVERSATION_NOT_FOUND", credential="token of another user"),
    # credentials
    *[
        row("GET", f"/api/v1/agents/{KEY}", 401, "UNAUTHORIZED", credential=name)
        for name in (
            "none", "empty", "basic", "unknown key", "long key", "not ascii", "garbage", "alg none", "alg HS512",
            "other secret", "other kid", "no kid", "odd kid", "no exp", "no iat", "other audience", "other issuer",
            "future", "changed", "empty claims", "odd claims",
        )
    ],
    row("GET", f"/api/v1/agents/{KEY}", 401, "TOKEN_EXPIRED", credential="expired"),
    row("POST", MESSAGES, 401, "UNAUTHORIZED", body=b"x" * (900 << 10), credential="none"),
]  # fmt: skip


def credentials(server: Running) -> dict[str, str | bytes | None]:
    world = server.world
    kid, secret = world.keys.keys[0]
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 60,
        "sub": "ann", "org": "acme", "agt": "echo", "cnv": KEY,
    }  # fmt: skip

    def token(
        changed: dict[str, Any] | None = None,
        *,
        without: str = "",
        algorithm: str = "HS256",
        key: bytes = secret,
        headers: dict[str, Any] | None = None,
    ) -> str:
        body = {name: value for name, value in {**claims, **(changed or {})}.items() if name != without}
        return "Bearer " + jwt.encode(
            body, key, algorithm=algorithm, headers={"kid": kid} if headers is None else headers
        )

    good = token()
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": kid})
    return {
        "admin": f"Bearer {world.admin_key}",
        "user": f"Bearer {world.user_key}",
        "other": f"Bearer {world.other_key}",
        "bare": f"Bearer {world.bare_key}",
        "token": good,
        "token of another agent": token({"agt": "other"}),
        "token of another user": token({"sub": "bob"}),
        "none": None,
        "empty": "Bearer",
        "basic": "Basic eDp5",
        "unknown key": "Bearer lobu_" + "x" * 43,
        "long key": "Bearer lobu_" + "x" * 5000,
        "not ascii": "Bearer é".encode(),
        "garbage": "Bearer a.b.c",
        "alg none": f"Bearer {unsigned}",
        "alg HS512": token(algorithm="HS512", key=secret * 2),
        "other secret": token(key=b"t" * 32),
        "other kid": token(headers={"kid": "other"}),
        "no kid": token(headers={}),
        "odd kid": "Bearer eyJraWQiOlsxXSwiYWxnIjoiSFMyNTYifQ.e30.x",
        "no exp": token(without="exp"),
        "no iat": token(without="iat"),
        "other audience": token({"aud": "lobu-run"}),
        "other issuer": token({"iss": "else"}),
        "future": token({"iat": now + 600}),
        "changed": good[:-6] + "AAAAAA",
        "empty claims": token({"cnv": ""}),
        "odd claims": token({"org": 5}),
        "expired": token({"iat": now - 120, "exp": now - 60}),
    }


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def same(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    headers = {name: value for name, value in answer.headers.items() if name != "date"}
    return answer.status_code, headers, answer.json()


async def test_a_message_with_and_without_a_length_gets_the_same_receipt(server: Running) -> None:
    await server.world.conversation()
    raw = json.dumps({"content": "hello", "messageId": "m1", "onBusy": "enqueue", "more": [1]}).encode()
    async with server.client(server.world.user_key) as client:
        direct = await client.post(MESSAGES, content=raw, headers=JSON)
        by_quart = await client.post(MESSAGES, content=pieces(raw), headers=JSON)
        old = await client.post(f"/lobu{MESSAGES}", content=raw, headers=JSON)
        old_by_quart = await client.post(f"/lobu{MESSAGES}", content=pieces(raw), headers=JSON)
    assert direct.status_code == 200
    assert same(direct) == same(by_quart)
    assert same(old) == same(old_by_quart)
    assert direct.json()["messageId"] == "m1"
    assert old.json()["turnId"] == direct.json()["turnId"]


async def test_a_body_that_does_not_come_is_refused_in_time(hasty: Running) -> None:
    await hasty.world.conversation()
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {hasty.world.admin_key}\r\n"
    async with await hasty.connect() as stream:
        await stream.send_all(f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode())
        with trio.fail_after(10):
            raw = b"".join([part async for part in stream])
    assert raw.startswith(b"HTTP/1.1 408 "), raw
    assert b"BODY_TIMEOUT" in raw


@pytest.mark.parametrize(("method", "path", "body", "headers", "credential", "status", "code"), ROWS)
async def test_refused(
    server: Running,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    credential: str,
    status: int,
    code: str,
) -> None:
    await server.world.conversation()
    await server.world.conversation(user="bob")
    authorization = credentials(server)[credential]
    async with server.client() as client:
        del client.headers["Authorization"]
        sent: list[tuple[bytes, bytes]] = [(name.encode(), value.encode()) for name, value in headers.items()]
        if authorization is not None:
            raw = authorization if isinstance(authorization, bytes) else authorization.encode()
            sent.append((b"Authorization", raw))
        answer = await client.request(method, path, content=body, headers=sent)
        if method == "POST" and body is not None:
            # Without a length the framework answers; what is answered before it must not differ (`edge.direct`).
            other = await client.request(method, path, content=pieces(body), headers=sent)
            assert same(answer) == same(other)
    assert answer.status_code == status, answer.text
    refusal = answer.json()
    assert refusal["code"] == code, refusal
    assert refusal["success"] is False
    assert refusal["error"].endswith(".")
    assert answer.headers["content-type"] == "application/json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert not server.world.gateway.hints


async def test_chunked_body_over_the_limit_is_answered(server: Running) -> None:
    await server.world.conversation()

    async def chunks() -> Any:
        for _ in range(40):
            yield b"x" * (64 << 10)

    async with server.client() as client:
        answer = await client.post(MESSAGES, content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("?x", 404),
        ("*", 404),
        ("http://[/x", 404),
        ("http://h/health/live", 200),
        ("/%", 404),
        ("/health/live?%ff=%", 200),
    ],
)
async def test_odd_request_targets(server: Running, target: str, status: int) -> None:
    async with await server.connect() as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        with trio.fail_after(5):
            raw = b"".join([part async for part in stream])
    assert raw.startswith(b"HTTP/1.1 %d " % status), raw


async def test_websocket_upgrades_are_refused(server: Running) -> None:
    stream = await server.connect()
    await stream.send_all(
        b"GET /api/v1/agents/x/events HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    raw = await stream.receive_some()
    assert raw.split()[1] in {b"400", b"403", b"404"}, raw
    await stream.aclose()


async def test_host_that_is_none_is_not_repeated(server: Running) -> None:
    async with server.client() as client:
        answer = await client.post("/api/v1/agents", json={}, headers={"Host": "evil<script>"})
    assert answer.json()["sseUrl"].startswith("/api/v1/agents/")


@pytest.mark.parametrize("host", ["a" * 64, "a..b", ".", "a b", "[", "a:b:c", ":", "xn--a"])
@pytest.mark.parametrize("path", ["/health/live", f"/api/v1/agents/{KEY}/socket"])
async def test_a_host_that_is_no_host_name_changes_nothing(server: Running, host: str, path: str) -> None:
    handshake = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    headers = handshake if path.endswith("socket") else {}
    async with server.client("nobody") as client:
        usual = await client.get(path, headers=headers)
        answer = await client.get(path, headers={**headers, "Host": host})
    assert usual.status_code == (401 if headers else 200)
    assert usual.headers.get("connection") == ("close" if headers else None)
    assert same(answer) == same(usual)


def test_weak_secrets_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter than 32"):
        JwtKeys.from_secrets(["short"])
    with pytest.raises(ValueError, match="same key id"):
        JwtKeys.from_secrets([SECRET, SECRET])
    with pytest.raises(ValueError, match="at least one"):
        JwtKeys(())


def test_rotated_secrets_verify_and_only_the_first_signs() -> None:
    old, new = JwtKeys.from_secrets(["o" * 32]), JwtKeys.from_secrets(["n" * 32, "o" * 32])
    ref = ConversationRef("acme", "echo", KEY)
    token, expires_at = old.sign(ref, "ann", 60)
    assert new.verify(token).ref == ref
    assert expires_at > time.time() * 1000
    assert jwt.get_unverified_header(new.sign(ref, "ann", 60)[0])["kid"] == new.keys[0][0]
    assert SECRET not in repr(JwtKeys.from_secrets([SECRET]))

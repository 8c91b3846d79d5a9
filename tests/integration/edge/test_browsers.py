"""Tickets and cookies between real connections and one store that several edges share."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any

import httpx
import jwt
import pytest
import trio

from edge.settings import EdgeSettings
from edge.tickets import SESSION_AUDIENCE, TICKET_AUDIENCE, sign_ticket, verify_ticket
from edge.tokens import JwtKeys, api_key_hash
from lobu_actors.store.errors import StoreOutcomeUnknown
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.postgres import PostgresStore
from tests.fakes.edge_world import SECRET, EdgeWorld
from tests.fakes.http_server import Running, parse_frames, running

KEY = "echo_ann_acme"
PATH = f"/api/v1/agents/{KEY}"
SESSION = "/api/v1/session"
OTHERS_ORIGIN = "https://elsewhere.example"


async def ticket_of(server: Running, key: str | None = None) -> str:
    async with server.client(key) as client:
        answer = await client.post(f"{PATH}/events/ticket")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json()) == {"success", "ticket", "expiresAt"}
    return str(answer.json()["ticket"])


async def bare_get(server: Running, path: str, **headers: str) -> httpx.Response:
    """For what is no event stream, which would not end."""
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
        client.stream("GET", path, headers=headers) as answer,
    ):
        assert not answer.headers.get("Content-Type", "").startswith("text/event-stream"), f"{path} is open"
        await answer.aread()
    return answer


async def read_stream(server: Running, path: str, *headers: str) -> None:
    """Read the stream's first frame, with these headers and no others."""
    with trio.fail_after(10):
        async with await server.connect() as stream:
            lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *headers]
            await stream.send_all(("\r\n".join(lines) + "\r\n\r\n").encode())
            raw = b""
            while b"event: connected" not in raw:
                got = await stream.receive_some()
                assert got, raw
                raw += got
    assert raw.startswith(b"HTTP/1.1 200")


async def opens(server: Running, ticket: str) -> None:
    await read_stream(server, f"{PATH}/events?ticket={ticket}")


async def refused(server: Running, ticket: str, path: str = PATH) -> str:
    answer = await bare_get(server, f"{path}/events?ticket={ticket}")
    assert answer.status_code == 401, answer.text
    return str(answer.json()["code"])


async def test_a_ticket_opens_its_stream_once(server: Running) -> None:
    await server.world.conversation()
    ticket = await ticket_of(server)
    await opens(server, ticket)
    assert await refused(server, ticket) == "TICKET_USED"
    await opens(server, await ticket_of(server, server.world.user_key))
    assert {organization for organization, _ in server.world.store.tables.used_tickets} == {"acme"}


async def test_a_ticket_is_used_once_on_whichever_edge(database_url: str) -> None:
    stores = [PostgresStore.connect(database_url) for _ in range(2)]
    first = await EdgeWorld.make(store=stores[0])
    await first.conversation()
    second = await EdgeWorld.make(store=stores[1])
    async with running(first) as here, running(second) as there:
        ticket = await ticket_of(here)
        await opens(there, ticket)
        assert await refused(here, ticket) == "TICKET_USED"
        assert await refused(there, ticket) == "TICKET_USED"
    for store in stores:
        store.close()


async def test_a_ticket_for_another_conversation_is_refused_and_not_used_up(server: Running) -> None:
    await server.world.conversation()
    await server.world.conversation("t")
    ticket = await ticket_of(server)
    assert await refused(server, ticket, f"{PATH}_t") == "TICKET_INVALID"
    await opens(server, ticket)


async def test_a_ticket_that_expired_or_is_none(server: Running) -> None:
    ref = await server.world.conversation()
    keys = server.world.keys
    late, _ = sign_ticket(keys, ref, "ann", -60)
    token, _ = keys.sign(ref, "ann", 60)
    foreign, _ = sign_ticket(JwtKeys.from_secrets(["x" * 32]), ref, "ann", 60)
    assert await refused(server, late) == "TICKET_EXPIRED"
    for text in (token, foreign, "", "no.tick.et", server.world.user_key):
        assert await refused(server, text) == "TICKET_INVALID", text
    ticket, _ = sign_ticket(keys, ref, "ann", 60)
    async with server.client(ticket) as client:  # a ticket is no Bearer credential
        assert (await client.get(PATH)).status_code == 401
    answer = await bare_get(server, f"{PATH}?ticket={ticket}")  # and opens the stream alone
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


async def test_a_ticket_lives_as_long_as_is_set() -> None:
    async with running(await EdgeWorld.make(EdgeSettings(ticket_seconds=7))) as server:
        await server.world.conversation()
        before = int(time.time())
        claims = jwt.decode(await ticket_of(server), SECRET, algorithms=["HS256"], audience=TICKET_AUDIENCE)
    assert claims["exp"] - claims["iat"] == 7
    assert before <= claims["iat"] <= time.time()
    assert (claims["org"], claims["cnv"], claims["sub"]) == ("acme", KEY, "ann")


class ForgetfulStore(MemoryStore):
    """Loses the answer of the first use of a ticket, which happened."""

    lost = 0

    async def use_ticket(self, organization_id: str, ticket_id: str, use_id: str, *, kept_seconds: float) -> bool:
        used = await super().use_ticket(organization_id, ticket_id, use_id, kept_seconds=kept_seconds)
        if not self.lost:
            self.lost += 1
            raise StoreOutcomeUnknown("the answer was lost")
        return used


async def test_a_use_whose_answer_was_lost_is_asked_for_again() -> None:
    async with running(await EdgeWorld.make(store=ForgetfulStore())) as server:
        await server.world.conversation()
        ticket = await ticket_of(server)
        await opens(server, ticket)
        assert await refused(server, ticket) == "TICKET_USED"


async def test_a_lost_answer_does_not_make_a_second_use_the_first() -> None:
    async with running(await EdgeWorld.make(store=ForgetfulStore())) as server:
        ref = await server.world.conversation()
        ticket, _ = sign_ticket(server.world.keys, ref, "ann", 60)
        ticket_id = verify_ticket(server.world.keys, ticket).ticket_id
        await MemoryStore.use_ticket(server.world.store, "acme", ticket_id, "on another edge", kept_seconds=60)
        assert await refused(server, ticket) == "TICKET_USED"
        assert server.world.store.lost == 1


class SilentStore(MemoryStore):
    """Never says whether a ticket was used."""

    async def use_ticket(self, organization_id: str, ticket_id: str, use_id: str, *, kept_seconds: float) -> bool:
        raise StoreOutcomeUnknown("the answer was lost")


async def test_a_use_that_cannot_be_stored_opens_nothing_and_is_not_waited_for_for_ever() -> None:
    """The browser is told to come back, with another ticket."""
    async with running(await EdgeWorld.make(EdgeSettings(read_seconds=0.3), SilentStore())) as server:
        await server.world.conversation()
        ticket = await ticket_of(server)
        with trio.fail_after(10):
            async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
                answer = await client.get(f"{PATH}/events?ticket={ticket}")
        assert [frame.event for frame in parse_frames(answer.content)] == ["drain"]


# Cookies


def cookie_of(answer: httpx.Response) -> Any:
    cookies = SimpleCookie(answer.headers["Set-Cookie"])
    assert list(cookies) == ["lobu_session"]
    return cookies["lobu_session"]


async def sign_in(server: Running, key: str | None = None) -> str:
    async with server.client(key) as client:
        answer = await client.post(SESSION)
    assert answer.status_code == 200, answer.text
    return str(cookie_of(answer).value)


@asynccontextmanager
async def browser(server: Running, cookie: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    sent = {"Cookie": f"lobu_session={cookie}", **{name.replace("_", "-"): text for name, text in headers.items()}}
    async with httpx.AsyncClient(base_url=server.url, headers=sent, timeout=20) as client:
        yield client


@pytest.mark.parametrize(("public_url", "secure"), [(None, False), ("https://chat.example", True)])
async def test_the_cookie(public_url: str | None, secure: bool) -> None:
    async with running(await EdgeWorld.make(EdgeSettings(public_url=public_url, session_seconds=100))) as server:
        async with server.client() as client:
            answer = await client.post(SESSION)
            ended = await client.delete(SESSION)  # its Bearer credential needs no Origin, though it has the cookie too
        cookie, key = cookie_of(answer), server.world.admin_key
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        assert bool(cookie["secure"]) is secure
        assert cookie["max-age"] == "100"
        claims = jwt.decode(cookie.value, SECRET, algorithms=["HS256"], audience=SESSION_AUDIENCE)
        assert claims["exp"] - claims["iat"] == 100
        assert key not in str(answer.headers)
        assert key not in str(claims)
        assert claims["key"] == api_key_hash(key)
        assert (cookie_of(ended).value, cookie_of(ended)["max-age"]) == ("", "0")
        assert bool(cookie_of(ended)["secure"]) is secure


async def test_a_cookie_needs_its_own_pages(server: Running) -> None:
    await server.world.conversation()
    cookie = await sign_in(server, server.world.user_key)
    own = server.url
    cases = [
        ("GET", {"Origin": own}, 200),
        ("GET", {"Sec_Fetch_Site": "same-origin"}, 200),
        ("GET", {"Sec_Fetch_Site": "same-site"}, 403),
        ("GET", {"Sec_Fetch_Site": "none"}, 403),
        ("GET", {"Sec_Fetch_Site": "same-origin", "Origin": OTHERS_ORIGIN}, 403),
        ("GET", {}, 403),
        ("GET", {"Referer": f"{own}/ops"}, 200),  # over plain HTTP, to another machine, all that there is
        ("GET", {"Referer": "http://127.0.0.1:1/"}, 403),
        ("GET", {"Referer": f"{own}.elsewhere.example/"}, 403),
        ("GET", {"Referer": f"{own}/", "Sec_Fetch_Site": "cross-site"}, 403),
        ("GET", {"Referer": f"{own}/", "Origin": OTHERS_ORIGIN}, 403),
        ("POST", {"Referer": f"{own}/"}, 403),
        ("GET", {"Origin": "null"}, 403),
        ("GET", {"Origin": f"{own}.elsewhere.example"}, 403),
        ("GET", {"Origin": "http://127.0.0.1:1"}, 403),  # the cookie of another port's page
        ("POST", {"Origin": own}, 200),
        ("POST", {"Sec_Fetch_Site": "same-origin"}, 403),
        ("POST", {"Origin": OTHERS_ORIGIN}, 403),
        ("POST", {}, 403),
    ]
    for method, headers, status in cases:
        async with browser(server, cookie, **headers) as client:
            answer = await client.request(method, PATH if method == "GET" else f"{PATH}/events/ticket")
        assert answer.status_code == status, (method, headers, answer.text)
        if status == 403:
            assert answer.json()["code"] == "ORIGIN_REFUSED"


async def test_the_public_addresss_origin() -> None:
    async with running(await EdgeWorld.make(EdgeSettings(public_url="https://chat.example"))) as server:
        await server.world.conversation()
        cookie = await sign_in(server)
        for origin, host, status in [
            ("https://chat.example", "inside:8787", 200),
            ("https://chat.example:443", "inside:8787", 200),
            ("https://other.example", "other.example", 200),
            ("http://chat.example", "chat.example", 403),
            ("https://chat.example:8443", "chat.example", 403),
            ("https://chat.example@elsewhere.example", "inside:8787", 403),
        ]:
            async with browser(server, cookie, Origin=origin, Host=host) as client:
                assert (await client.get(PATH)).status_code == status, (origin, host)


async def test_bearer_wins_over_the_cookie(server: Running) -> None:
    await server.world.conversation()
    cookie = await sign_in(server, server.world.user_key)
    for key, status in [(server.world.other_key, 404), ("lobu_wrong", 401), (server.world.admin_key, 200)]:
        async with browser(server, cookie, Origin=server.url, Authorization=f"Bearer {key}") as client:
            assert (await client.get(PATH)).status_code == status
    async with browser(server, cookie, Origin=server.url, Authorization="Basic cHJveHk6eA==") as client:
        assert (await client.get(PATH)).status_code == 200
        assert (await client.post(SESSION)).status_code == 401  # a cookie gets no new cookie


async def test_a_tokens_cookie_is_bound_as_the_token_is_and_ends_with_it(server: Running) -> None:
    ref = await server.world.conversation()
    await server.world.conversation("t")
    token, expires_at = server.world.keys.sign(ref, "ann", 90)
    async with server.client(token) as client:
        answers = [await client.post(SESSION) for _ in range(2)]
    for answer in answers:
        assert answer.json()["expiresAt"] <= expires_at
    async with browser(server, cookie_of(answers[0]).value, Origin=server.url) as client:
        assert (await client.get(PATH)).status_code == 200
        assert (await client.get(f"{PATH}_t")).status_code == 403


async def test_cookies_that_are_none(server: Running) -> None:
    ref = await server.world.conversation()
    keys = server.world.keys
    late, _ = keys.encode({"key": api_key_hash(server.world.admin_key)}, SESSION_AUDIENCE, -60)
    nameless, _ = keys.encode({}, SESSION_AUDIENCE, 60)
    ticket, _ = sign_ticket(keys, ref, "ann", 60)
    token, _ = keys.sign(ref, "ann", 60)
    for text, code in [
        (late, "TOKEN_EXPIRED"),
        *[(text, "UNAUTHORIZED") for text in (nameless, ticket, token, server.world.admin_key, "x")],
    ]:
        async with browser(server, text, Origin=server.url) as client:
            answer = await client.get(PATH)
        assert (answer.status_code, answer.json()["code"]) == (401, code)


async def test_a_revoked_keys_cookie_is_over() -> None:
    async with running(await EdgeWorld.make(EdgeSettings(api_key_cache_seconds=0.0))) as server:
        await server.world.conversation()
        cookie = await sign_in(server, server.world.user_key)
        async with browser(server, cookie, Origin=server.url) as client:
            assert (await client.get(PATH)).status_code == 200
            assert await server.world.store.revoke_api_key("acme", api_key_hash(server.world.user_key)) == 1
            assert (await client.get(PATH)).status_code == 401


async def test_ending_a_session_is_for_own_pages_only(server: Running) -> None:
    cookie = await sign_in(server)
    for headers, status in [({}, 403), ({"Origin": OTHERS_ORIGIN}, 403), ({"Origin": server.url}, 200)]:
        async with browser(server, cookie, **headers) as client:
            assert (await client.delete(SESSION)).status_code == status


async def test_the_stream_opens_with_a_cookie(server: Running) -> None:
    await server.world.conversation()
    cookie = await sign_in(server)
    await read_stream(server, f"{PATH}/events", f"Cookie: lobu_session={cookie}", "Sec-Fetch-Site: same-origin")

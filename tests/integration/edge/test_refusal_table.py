"""Every route of the app, asked by every kind of caller that must not use it. A new route is in here by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import attrs
import httpx
import pytest

from edge.tickets import sign_ticket
from lobu_actors.contract.ids import ConversationRef
from tests.fakes.http_server import Running

OURS = ConversationRef("acme", "echo", "echo_ann_acme")
THEIRS = ConversationRef("rival", "echo", "echo_root_rival")

# Routes that name no conversation. What they are about: the caller's own organization; a run's own conversation; a
# browser's own cookie; nobody's.
WITHOUT_KEY = {
    ("/api/v1/agents", "POST"),
    ("/worker/transcript/snapshot", "GET"),
    ("/worker/transcript/snapshot", "POST"),
    ("/worker/transcript/snapshot", "DELETE"),
    ("/api/v1/session", "POST"),
    ("/api/v1/session", "DELETE"),
    ("/health/live", "GET"),
    ("/health/ready", "GET"),
    ("/metrics", "GET"),
    ("/openapi.json", "GET"),
    ("/docs", "GET"),
}


@attrs.frozen
class Route:
    rule: str
    method: str

    @property
    def path(self) -> str:
        return re.sub(r"<[^>]+>", "x", self.rule.replace("<key>", OURS.conversation_id))


@attrs.frozen
class Caller:
    """`status` is what every route answers it."""

    name: str
    status: int
    headers: dict[str, str] = attrs.field(factory=dict)
    query: str = ""


def routes_of(server: Running) -> list[Route]:
    return [
        Route(rule.rule, method)
        for rule in server.world.app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS"})
    ]


async def ask(client: httpx.AsyncClient, route: Route, caller: Caller) -> httpx.Response:
    body: dict[str, Any] = {"json": {"content": "hi", "answer": "x"}} if route.method == "POST" else {}
    return await client.request(route.method, route.path + caller.query, headers=caller.headers, **body)


async def cookie(client: httpx.AsyncClient, bearer: str, **headers: str) -> dict[str, str]:
    answer = await client.post("/api/v1/session", headers={"Authorization": f"Bearer {bearer}"})
    assert answer.status_code == 200, answer.text
    value = answer.cookies["lobu_session"]
    client.cookies.clear()
    return {"Cookie": f"lobu_session={value}"} | headers


async def callers(server: Running, client: httpx.AsyncClient) -> list[Caller]:
    world, own = server.world, {"Origin": server.url}

    def bearer(credential: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {credential}"}

    def ticket(ref: ConversationRef, user_id: str, seconds: int = 60) -> str:
        return f"?ticket={sign_ticket(world.keys, ref, user_id, seconds)[0]}"

    token, _ = world.keys.sign(THEIRS, "root", 600)
    # Made by who has the keys, for a conversation that has another user or another agent than it says.
    stale, _ = world.keys.sign(OURS, "bob", 600)
    moved, _ = world.keys.sign(replace(OURS, agent_id="other"), "ann", 600)
    foreign, _ = world.keys.sign(replace(OURS, organization_id="rival"), "ann", 600)
    return [
        Caller("nobody", 401),
        Caller("another organization's key", 404, headers=bearer(world.other_key)),
        Caller("another conversation's token", 403, headers=bearer(token)),
        Caller("another user's token", 404, headers=bearer(stale)),
        Caller("another agent's token", 404, headers=bearer(moved)),
        Caller("a token of the same name in another organization", 404, headers=bearer(foreign)),
        Caller("another organization's cookie", 404, headers=await cookie(client, world.other_key, **own)),
        Caller("another conversation's cookie", 403, headers=await cookie(client, token, **own)),
        Caller("our cookie without an origin", 403, headers=await cookie(client, world.user_key)),
        Caller(
            "our cookie from another's page",
            403,
            headers=await cookie(client, world.user_key, Origin="https://elsewhere.example"),
        ),
        Caller("another conversation's ticket", 401, query=ticket(THEIRS, "root")),
        Caller("an expired ticket", 401, query=ticket(OURS, "ann", -60)),
        Caller("another key, and our ticket", 404, headers=bearer(world.other_key), query=ticket(OURS, "ann")),
    ]


async def test_no_route_is_open_to_others(server: Running) -> None:
    await server.world.conversation()
    await server.world.store.open_conversation(THEIRS, "root")
    routes = [route for route in routes_of(server) if "<key>" in route.rule]
    assert len(routes) >= 2 * 12
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for caller in await callers(server, client):
            for route in routes:
                answer = await ask(client, route, caller)
                assert answer.status_code == caller.status, (caller.name, route, answer.text)
                assert route.method == "HEAD" or not answer.json()["success"]
    assert not server.world.store.tables.turns
    assert not server.world.gateway.closes
    assert not (await server.world.store.find_conversation("acme", OURS.conversation_id)).closing


@pytest.mark.parametrize("kind", ["bearer", "cookie"])
async def test_every_route_is_open_to_its_user(server: Running, kind: str) -> None:
    """The table above refuses for the right reasons: the same requests of the right caller are not refused so."""
    await server.world.conversation()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        headers = {"Authorization": f"Bearer {server.world.user_key}"}
        if kind == "cookie":
            headers = await cookie(client, server.world.user_key, Origin=server.url)
        for route in routes_of(server):
            if "<key>" not in route.rule or (route.rule.endswith("/events") and route.method == "GET"):
                continue
            answer = await ask(client, route, Caller("ann", 200, headers=headers))
            assert answer.status_code not in (401, 403), (route, answer.text)
            if route.method != "HEAD":
                assert answer.json().get("code") != "CONVERSATION_NOT_FOUND", route


async def test_a_ticket_goes_through_the_same_check_of_the_conversation(server: Running) -> None:
    """Signed for the right name, and yet for another user, agent or organization than the stored conversation's."""
    await server.world.conversation()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for ref, user_id in [
            (OURS, "bob"),
            (replace(OURS, agent_id="other"), "ann"),
            (replace(OURS, organization_id="rival"), "ann"),
        ]:
            ticket, _ = sign_ticket(server.world.keys, ref, user_id, 60)
            answer = await client.get(f"/api/v1/agents/{OURS.conversation_id}/events?ticket={ticket}")
            assert (answer.status_code, answer.json()["code"]) == (404, "CONVERSATION_NOT_FOUND")


async def test_what_names_no_conversation_is_known(server: Running) -> None:
    found = {
        (route.rule.removeprefix("/lobu"), route.method)
        for route in routes_of(server)
        if "<key>" not in route.rule and route.method != "HEAD"
    }
    assert found == WITHOUT_KEY


async def test_opening_and_workers_take_neither_tickets_nor_others(server: Running) -> None:
    await server.world.conversation()
    own = {"Origin": server.url}
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        ticket = f"?ticket={sign_ticket(server.world.keys, OURS, 'ann', 60)[0]}"
        assert (await client.post(f"/api/v1/agents{ticket}")).status_code == 401
        sent = await cookie(client, server.world.keys.sign(OURS, "ann", 60)[0], **own)
        assert (await client.post("/api/v1/agents", headers=sent)).status_code == 403
        sent = await cookie(client, server.world.other_key, **own)
        opened = await client.post("/api/v1/agents", headers=sent, json={"userId": "ann"})
        assert opened.json()["agentId"] == "echo_ann_rival"  # its own organization's, whatever it asks for
        for rule, method in WITHOUT_KEY:
            if rule.startswith("/worker/"):
                for caller in (Caller("cookie", 401, headers=sent), Caller("ticket", 401, query=ticket)):
                    assert (await ask(client, Route(rule, method), caller)).status_code == 401

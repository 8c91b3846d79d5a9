"""Every route of the app, asked by every kind of caller that must not use it. A route that is in no row fails here."""

from __future__ import annotations

import re
from typing import Any

import attrs
import httpx
import pytest
from trio_websocket import ConnectionRejected

from edge.run_tokens import sign_run
from edge.tickets import sign_ticket
from edge.tokens import new_api_key
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Role
from lobu_actors.store.records import ApiKey
from tests.fakes.http_server import Running
from tests.fakes.socket_client import opened

OURS = ConversationRef("acme", "echo", "echo_ann_acme")
THEIRS = ConversationRef("rival", "echo", "echo_root_rival")
SCHEDULED = "echo_watcher_w1_run_r1"  # names no organization: each may have its own of that name

# Every route of the app is in one of these rows. Each row's callers are refused by the tests below.
A_CONVERSATION = {
    ("/api/v1/agents/<key>", "GET"),
    ("/api/v1/agents/<key>", "DELETE"),
    ("/api/v1/agents/<key>/messages", "POST"),
    ("/api/v1/agents/<key>/files", "GET"),
    ("/api/v1/agents/<key>/files/<file_id>", "GET"),
    ("/api/v1/agents/<key>/events", "GET"),
    ("/api/v1/agents/<key>/events/ticket", "POST"),
    ("/api/v1/agents/<key>/socket", "GET"),
    ("/api/v1/agents/<key>/cancel", "POST"),
    ("/api/v1/agents/<key>/questions/<question_id>/answer", "POST"),
    ("/api/v1/agents/<key>/reset", "POST"),
    ("/api/v1/agents/<key>/session/messages", "GET"),
    ("/api/v1/agents/<key>/session/stats", "GET"),
    ("/api/v1/agents/<key>/turns/<turn_id>/timeline", "GET"),
    ("/api/v1/agents/<key>/turns", "GET"),
}
THE_CALLERS_ORGANIZATION = {
    ("/api/v1/agents", "POST"),
    ("/api/v1/agents", "GET"),
    ("/api/v1/conversations", "GET"),
    ("/api/v1/session", "GET"),
}
# Their conversation is named in a header or a body; `test_dialect_tenants.py` asks for another's in every such way.
A_NAMED_CONVERSATION = {
    ("/v1/models", "GET"),
    ("/v1/models/<model>", "GET"),
    ("/v1/chat/completions", "POST"),
    ("/v1/responses", "POST"),
    ("/api/v1/ui/<agent_id>/chat", "POST"),
    ("/api/v1/ui/<agent_id>/chat/<chat_id>/stream", "GET"),
    ("/api/v1/ui/<agent_id>/chat/<chat_id>/stop", "POST"),
    ("/api/v1/ag-ui/<agent_id>", "POST"),
}
A_RUN = {("/worker/transcript/snapshot", method) for method in ("GET", "POST", "DELETE")}
A_WORKERS_KEY = {("/worker/link", "GET")}
A_BROWSERS_COOKIE = {("/api/v1/session", "POST"), ("/api/v1/session", "DELETE")}
_OPEN = ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/", "/ops")
EVERYBODYS = {(path, "GET") for path in _OPEN}
A_FILE = {("/web/<name>", "GET")}
AN_ADMINISTRATORS = {("/api/v1/ops/events", "GET")}
ROWS = [
    A_CONVERSATION,
    THE_CALLERS_ORGANIZATION,
    A_NAMED_CONVERSATION,
    A_RUN,
    A_WORKERS_KEY,
    A_BROWSERS_COOKIE,
    EVERYBODYS,
    A_FILE,
    AN_ADMINISTRATORS,
]
TAKES_TICKETS = ("/api/v1/agents/<key>/events", "GET")


@attrs.frozen
class Route:
    rule: str
    method: str

    @property
    def row(self) -> tuple[str, str]:
        """As the tables above name it: without the older clients' prefix, and HEAD is the GET that it is."""
        return self.rule.removeprefix("/lobu"), "GET" if self.method == "HEAD" else self.method

    def path(self, key: str = OURS.conversation_id) -> str:
        return re.sub(r"<[^>]+>", "x", self.rule.replace("<key>", key))


@attrs.frozen
class Caller:
    """`status` is what every route answers it."""

    name: str
    status: int
    headers: dict[str, str] = attrs.field(factory=dict)
    query: str = ""


def routes_of(server: Running, row: set[tuple[str, str]] | None = None) -> list[Route]:
    """The routes that the app has; with `row`, those of them that are in it."""
    found = [
        Route(rule.rule, method)
        for rule in server.world.app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"OPTIONS"})
    ]
    return [route for route in found if row is None or route.row in row]


async def ask(
    client: httpx.AsyncClient, route: Route, caller: Caller, key: str = OURS.conversation_id
) -> httpx.Response:
    """The answer, read to its end, which an event stream has not: nobody here may get one."""
    body: dict[str, Any] = {"json": {"content": "hi", "answer": "x"}} if route.method == "POST" else {}
    path = route.path(key) + caller.query
    async with client.stream(route.method, path, headers=caller.headers, **body) as answer:
        endless = route.method == "GET" and answer.headers.get("Content-Type", "").startswith("text/event-stream")
        assert not endless, f"{caller.name} got the stream of {path}"
        await answer.aread()
    return answer


async def key_of(server: Running, user_id: str) -> str:
    """An API key of a user of the conversation's own organization who is no administrator."""
    key, key_hash = new_api_key()
    await server.world.store.put_api_key(ApiKey(key_hash, "acme", user_id, Role.USER, "test"))
    return key


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

    bobs_key = await key_of(server, "bob")
    bobs = await world.conversation(user="bob")
    bobs_token, _ = world.keys.sign(bobs, "bob", 600)
    token, _ = world.keys.sign(THEIRS, "root", 600)
    # Made by who has the keys, for a conversation that has another user or another agent than it says.
    stale, _ = world.keys.sign(OURS, "bob", 600)
    moved, _ = world.keys.sign(OURS._replace(agent_id="other"), "ann", 600)
    foreign, _ = world.keys.sign(OURS._replace(organization_id="rival"), "ann", 600)
    return [
        Caller("nobody", 401),
        Caller("another organization's key", 404, headers=bearer(world.other_key)),
        Caller("another user's key", 404, headers=bearer(bobs_key)),
        Caller("another user's cookie", 404, headers=await cookie(client, bobs_key, **own)),
        Caller("another user's token of an own conversation", 403, headers=bearer(bobs_token)),
        Caller("a cookie of that token", 403, headers=await cookie(client, bobs_token, **own)),
        Caller("another user's ticket", 401, query=ticket(bobs, "bob")),
        Caller("another conversation's token", 403, headers=bearer(token)),
        Caller("another user's token for this conversation", 404, headers=bearer(stale)),
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
    routes = routes_of(server, A_CONVERSATION)
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for caller in await callers(server, client):
            for route in routes:
                answer = await ask(client, route, caller)
                assert answer.status_code == caller.status, (caller.name, route, answer.text)
                assert route.method == "HEAD" or not answer.json()["success"]
            await _upgrade_is_refused(server, caller)
    assert not server.world.store.tables.turns
    assert not server.world.gateway.closes
    assert not (await server.world.store.find_conversation("acme", OURS.conversation_id)).closing


async def _upgrade_is_refused(server: Running, caller: Caller) -> None:
    """The same answer for a WebSocket, before there is one."""
    path = f"/api/v1/agents/{OURS.conversation_id}/socket{caller.query}"
    with pytest.raises(ConnectionRejected) as refused:
        async with opened(server, path, key="", **caller.headers):
            pytest.fail(f"{caller.name} got the socket")
    assert refused.value.status_code == caller.status, caller.name
    assert b'"success":false' in (refused.value.body or b"")


@pytest.mark.parametrize("kind", ["bearer", "cookie"])
async def test_every_route_is_open_to_its_user(server: Running, kind: str) -> None:
    """The table above refuses for the right reasons: the same requests of the right caller are not refused so."""
    await server.world.conversation()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        headers = {"Authorization": f"Bearer {server.world.user_key}"}
        if kind == "cookie":
            headers = await cookie(client, server.world.user_key, Origin=server.url)
        for route in routes_of(server, A_CONVERSATION):
            if route.row == TAKES_TICKETS and route.method == "GET":
                continue  # an answer without an end
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
            (OURS._replace(agent_id="other"), "ann"),
            (OURS._replace(organization_id="rival"), "ann"),
        ]:
            ticket, _ = sign_ticket(server.world.keys, ref, user_id, 60)
            answer = await ask(client, Route(*TAKES_TICKETS), Caller(str(ref), 404, query=f"?ticket={ticket}"))
            assert (answer.status_code, answer.json()["code"]) == (404, "CONVERSATION_NOT_FOUND")


async def test_every_route_is_in_one_row_and_every_row_is_a_route(server: Running) -> None:
    """A new route is in no row: whoever adds it says here who may use it, and the tests above and below ask it."""
    routes = routes_of(server)
    for route in routes:
        assert sum(route.row in row for row in ROWS) == 1, route
        assert (route.row in A_CONVERSATION) == ("<key>" in route.rule), route
    # At the root and under the older clients' prefix alike.
    for prefix in ("", "/lobu"):
        assert {route.row for route in routes if route.rule.startswith("/lobu/") == bool(prefix)} == set.union(*ROWS)


async def test_a_good_ticket_opens_nothing_but_its_stream(server: Running) -> None:
    await server.world.conversation()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for route in routes_of(server, set.union(*ROWS) - EVERYBODYS - A_FILE - {TAKES_TICKETS}):
            ticket, _ = sign_ticket(server.world.keys, OURS, "ann", 60)
            answer = await ask(client, route, Caller("ticket", 401, query=f"?ticket={ticket}"))
            # To forget a cookie needs no credentials.
            assert answer.status_code == (200 if route.row == ("/api/v1/session", "DELETE") else 401), route
    assert not server.world.store.tables.used_tickets


async def test_a_scheduled_name_is_each_organizations_own(server: Running) -> None:
    """Who knows the name of another organization's scheduled run, and has one of that name, sees only its own."""
    world = server.world
    ours = ConversationRef("acme", "echo", SCHEDULED)
    await world.store.open_conversation(ours, "ann")
    await world.store.open_conversation(ConversationRef("rival", "echo", SCHEDULED), "root")
    bobs_key = await key_of(server, "bob")
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:

        async def seen_by(credential: str) -> tuple[int, str | None]:
            headers = {"Authorization": f"Bearer {credential}"}
            answer = await client.get(f"/api/v1/agents/{SCHEDULED}", headers=headers)
            return answer.status_code, answer.json().get("agent", {}).get("userId")

        assert await seen_by(world.user_key) == await seen_by(world.admin_key) == (200, "ann")
        assert await seen_by(world.other_key) == (200, "root")
        assert await seen_by(bobs_key) == await seen_by(world.bare_key) == (404, None)
        foreign, _ = world.keys.sign(ConversationRef("rival", "echo", SCHEDULED), "root", 60)
        assert await seen_by(foreign) == (200, "root")
        caller = Caller("rival", 200, headers={"Authorization": f"Bearer {world.other_key}"})
        routes = routes_of(server, A_CONVERSATION - {TAKES_TICKETS})
        for route in sorted(routes, key=lambda route: route.method == "DELETE"):
            await ask(client, route, caller, SCHEDULED)
        ticket, _ = sign_ticket(world.keys, ConversationRef("rival", "echo", SCHEDULED), "root", 60)
        assert (await client.head(f"/api/v1/agents/{SCHEDULED}/events?ticket={ticket}")).status_code == 200
    # All of that was done to the other one of that name.
    assert not (await world.store.find_conversation("acme", SCHEDULED)).closing
    assert (await world.store.find_conversation("rival", SCHEDULED)).closing
    assert {turn.ref.organization_id for turn in world.store.tables.turns.values()} == {"rival"}


async def test_a_thread_cannot_take_a_scheduled_runs_name(server: Running) -> None:
    """Users may be called `watcher`, organizations as watchers are: whose a name is, is stored, not read from it."""
    key = "echo_watcher_acme_run_r1"
    await server.world.store.open_conversation(ConversationRef("acme", "echo", key), "ann")
    watchers_key = await key_of(server, "watcher")
    async with server.client(watchers_key) as client:
        opened = await client.post("/api/v1/agents", json={"agentId": "echo", "thread": "run_r1"})
        assert opened.status_code == 409, opened.text
        assert (await client.get(f"/api/v1/agents/{key}")).status_code == 404


async def test_opening_is_for_keys_and_stays_in_their_organization(server: Running) -> None:
    await server.world.conversation()
    own = {"Origin": server.url}
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for route in routes_of(server, THE_CALLERS_ORGANIZATION):
            assert (await ask(client, route, Caller("nobody", 401))).status_code == 401
        sent = await cookie(client, server.world.keys.sign(OURS, "ann", 60)[0], **own)
        assert (await client.post("/api/v1/agents", headers=sent)).status_code == 403
        sent = await cookie(client, server.world.other_key, **own)
        opened = await client.post("/api/v1/agents", headers=sent, json={"userId": "ann"})
        assert opened.json()["agentId"] == "echo_ann_rival"  # its own organization's, whatever it asks for
        bobs_key = await key_of(server, "bob")
        for sent in ({"Authorization": f"Bearer {bobs_key}"}, await cookie(client, bobs_key, **own)):
            for_ann = await client.post("/api/v1/agents", headers=sent, json={"userId": "ann"})
            assert (for_ann.status_code, for_ann.json()["code"]) == (403, "FORBIDDEN")


async def test_workers_addresses_take_run_tokens_of_live_runs_only(server: Running) -> None:
    world, own = server.world, {"Origin": server.url}
    await world.conversation()
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        token, _ = world.keys.sign(OURS, "ann", 60)
        run = sign_run(world.keys, OURS, "r1", 60)
        callers = [
            Caller("nobody", 401),
            Caller("an administrator", 401, headers={"Authorization": f"Bearer {world.admin_key}"}),
            Caller("the conversation's user", 401, headers={"Authorization": f"Bearer {token}"}),
            Caller("its cookie", 401, headers=await cookie(client, world.user_key, **own)),
            Caller("a run that is none", 403, headers={"Authorization": f"Bearer {run}"}),
        ]
        for caller in callers:
            for route in routes_of(server, A_RUN):
                answer = await ask(client, route, caller)
                assert answer.status_code == caller.status, (caller.name, route, answer.text)


async def test_a_workers_key_opens_its_link_and_nothing_else(server: Running) -> None:
    world = server.world
    await world.conversation()
    key, key_hash = new_api_key()
    await world.store.put_api_key(ApiKey(key_hash, "acme", "gpu", Role.WORKER, "test"))
    worker = Caller("a worker", 401, headers={"Authorization": f"Bearer {key}"})
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for route in routes_of(server, set.union(*ROWS) - EVERYBODYS - A_FILE - A_WORKERS_KEY):
            if route.row != ("/api/v1/session", "DELETE"):
                assert (await ask(client, route, worker)).status_code == 401, route
        for bearer in (world.admin_key, world.user_key, world.keys.sign(OURS, "ann", 60)[0], "lobu_none"):
            other = Caller("no worker", 401, headers={"Authorization": f"Bearer {bearer}"})
            for route in routes_of(server, A_WORKERS_KEY):
                assert (await ask(client, route, other)).status_code == 401, bearer
                assert (await ask(client, route, worker)).status_code == 426
            with pytest.raises(ConnectionRejected) as refused:
                async with opened(server, "/worker/link", key=bearer):
                    pytest.fail("it got the link")
            assert refused.value.status_code == 401
    assert not world.store.tables.turns


async def test_a_cookie_is_given_for_bearer_credentials_only(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        sent = await cookie(client, server.world.user_key, Origin=server.url)
        for caller in (Caller("nobody", 401), Caller("a cookie", 401, headers=sent)):
            for route in routes_of(server, {("/api/v1/session", "POST")}):
                assert (await ask(client, route, caller)).status_code == caller.status


async def test_what_is_everybodys_asks_nobody(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for route in routes_of(server, EVERYBODYS):
            answer = await ask(client, route, Caller("nobody", 200))
            assert answer.status_code == 200
            for secret in ("acme", "rival", OURS.conversation_id):
                assert secret not in answer.text


async def test_how_the_hosts_are_is_for_administrators(server: Running) -> None:
    own = {"Origin": server.url}
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        token = server.world.keys.sign(OURS, "ann", 60)[0]
        admins = server.world.keys.sign(THEIRS, "root", 60)[0]
        callers = [
            Caller("nobody", 401),
            Caller("a user's key", 403, headers={"Authorization": f"Bearer {server.world.user_key}"}),
            Caller("a user's cookie", 403, headers=await cookie(client, server.world.user_key, **own)),
            Caller("a conversation's token", 403, headers={"Authorization": f"Bearer {token}"}),
            Caller("an administrator's conversation's token", 403, headers={"Authorization": f"Bearer {admins}"}),
            Caller("an admin's cookie without an origin", 403, headers=await cookie(client, server.world.admin_key)),
        ]
        for caller in callers:
            for route in routes_of(server, AN_ADMINISTRATORS):
                assert (await ask(client, route, caller)).status_code == caller.status, caller.name
    assert server.world.gateway.looks == []

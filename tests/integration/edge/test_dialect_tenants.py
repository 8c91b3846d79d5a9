"""The other protocols' addresses on a real socket: whose conversation it is, and what input is not understood."""

from __future__ import annotations

from typing import Any

import attrs
import httpx
import pytest

from edge.dialects.encoder import Head
from edge.dialects.openai_responses import response_id
from edge.tokens import new_api_key
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Role
from lobu_actors.store.records import ApiKey
from tests.fakes.dialect_requests import (
    AG_UI,
    CHAT,
    DIALECTS,
    RESPONSES,
    UI,
    replying,
    user_message,
)
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running

OURS = "echo_ann_acme_ours"


# --- whose it is


@attrs.frozen
class Route:
    method: str
    path: str
    json: dict[str, Any] | None = None
    headers: dict[str, str] = attrs.field(factory=dict)


def routes_to(name: str) -> list[Route]:
    """Every way in which a dialect's request can name a conversation."""
    sent = [Route("POST", d.path, d.body("hi", name), d.request("hi", name)["headers"]) for d in DIALECTS]
    return [
        *sent,
        Route("POST", "/v1/responses", RESPONSES.body("hi", None) | {"conversation": name}),
        Route("GET", f"/api/v1/ui/echo/chat/{name}/stream"),
        Route("POST", f"/api/v1/ui/echo/chat/{name}/stop"),
    ]


async def ours(world: EdgeWorld) -> ConversationRef:
    """ann's, with a turn that goes on and says something that nobody else may read."""
    ref = ConversationRef("acme", "echo", OURS)
    await world.store.open_conversation(ref, "ann")
    turn = await world.message(ref, "secret question", "m-ours")
    owner = await world.owner(ref)
    await owner.begin(turn)
    owner.say("secret reply")
    await owner.commit_question(turn, "q-ours")
    owner.tell()
    return ref


@pytest.mark.parametrize("kind", ["bearer", "cookie"])
async def test_no_name_leads_to_anothers_conversation(server: Running, kind: str) -> None:
    """Neither another organization's caller nor another user gets there, by whatever name: they get their own."""
    world = server.world
    ref = await ours(world)
    replying(world)
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        for credential in (world.other_key, await bobs(world)):
            headers = await signed(client, credential, kind, server.url)
            for name in (OURS, "ours"):
                for route in routes_to(name):
                    answer = await client.request(
                        route.method, route.path, json=route.json, headers=headers | route.headers
                    )
                    assert answer.status_code in (200, 202, 204), (route, answer.text)
                    assert "secret" not in answer.text, route
            previous = openai_id(OURS)
            body = RESPONSES.body("hi", None) | {"previous_response_id": previous}
            answer = await client.post("/v1/responses", json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "CONVERSATION_NOT_FOUND")
    turns = [turn for turn in world.store.tables.turns.values() if turn.ref == ref]
    assert [turn.message_id for turn in turns] == ["m-ours"]
    assert all(cancelled != ref for cancelled, _ in world.gateway.cancels)
    assert not world.gateway.answers


@pytest.mark.parametrize("kind", ["bearer", "cookie"])
async def test_a_token_of_one_conversation_opens_no_other(server: Running, kind: str) -> None:
    world = server.world
    await ours(world)
    other = await world.conversation("other")
    token, _ = world.keys.sign(other, "ann", 600)
    turns = replying(world)
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        headers = await signed(client, token, kind, server.url)
        for name in (OURS, "ours"):
            for route in routes_to(name):
                answer = await client.request(
                    route.method, route.path, json=route.json, headers=headers | route.headers
                )
                assert answer.status_code == 403, (route, answer.text)
        body = CHAT.body("hi", None)
        assert (await client.post(CHAT.path, json=body, headers=headers)).status_code == 200
        assert (await client.post(CHAT.path, json=body | {"model": "x"}, headers=headers)).status_code == 404
        assert [m["id"] for m in (await client.get("/v1/models", headers=headers)).json()["data"]] == ["echo"]
    assert [turn.ref for turn in turns] == [other]


async def test_who_has_no_credentials_or_comes_from_anothers_page(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        sent = await signed(client, server.world.user_key, "cookie", "https://elsewhere.example")
        models = [Route("GET", "/v1/models"), Route("GET", "/v1/models/echo")]
        for route in [*routes_to("x"), *models]:
            for headers, status in (({}, 401), (sent, 403)):
                answer = await client.request(
                    route.method, route.path, json=route.json, headers=headers | route.headers
                )
                assert answer.status_code == status, (route, answer.text)
                if route.path.startswith("/v1/"):
                    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert not server.world.store.tables.conversations


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT.path, {"messages": []}, "model"),
        (CHAT.path, {"model": "echo"}, "messages"),
        (CHAT.path, {"model": "echo", "messages": []}, "messages"),
        (CHAT.path, {"model": "echo", "messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        (CHAT.path, {"model": "echo", "messages": [{"role": "king", "content": "x"}]}, "messages"),
        (CHAT.path, {"model": "echo", "messages": [{"role": "tool", "content": "x"}]}, "messages"),
        (
            CHAT.path,
            {"model": "echo", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
        ),
        (CHAT.path, CHAT.body("x", None) | {"n": 2}, "n"),
        (CHAT.path, CHAT.body("x", None) | {"stream": "yes"}, "stream"),
        (CHAT.path, CHAT.body("x", None) | {"tools": "none"}, "tools"),
        (RESPONSES.path, {"model": "echo"}, "input"),
        (RESPONSES.path, {"model": "echo", "input": "x", "instructions": 1}, "instructions"),
        (RESPONSES.path, {"model": "echo", "input": [{"type": "function_call_output", "output": "x"}]}, "input"),
        (RESPONSES.path, {"model": "echo", "input": "x", "conversation": 1}, "conversation"),
        (UI.path, {"messages": user_message("x")}, "id"),
        (UI.path, {"id": "c", "messages": [{"role": "user", "content": "x"}]}, "messages"),
        (UI.path, {"id": "c", "messages": [{"role": "user", "parts": [{"type": "file"}]}]}, "messages"),
        (AG_UI.path, {"threadId": "t", "messages": []}, "runId"),
        (AG_UI.path, {"threadId": "t", "runId": "r", "messages": []}, "messages"),
        (AG_UI.path, {"threadId": "t", "runId": "r", "messages": [], "resume": [1]}, "resume"),
        (AG_UI.path, {"threadId": "t", "runId": "r", "messages": [], "resume": [{"interruptId": "q"}]}, "resume"),
    ],
)
async def test_bad_input_says_where(server: Running, path: str, body: dict[str, Any], field: str) -> None:
    async with server.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    if path.startswith("/v1/"):
        assert answer.json()["error"]["param"] == field
        assert answer.json()["error"]["type"] == "invalid_request_error"
    else:
        assert answer.json()["details"]["field"] == field
    assert not server.world.store.tables.conversations


def openai_id(conversation_id: str) -> str:
    return response_id(Head("m-ours", "t", "echo", conversation_id, 0))


async def bobs(world: EdgeWorld) -> str:
    key, key_hash = new_api_key()
    await world.store.put_api_key(ApiKey(key_hash, "acme", "bob", Role.USER, "test"))
    return key


async def signed(client: httpx.AsyncClient, credential: str, kind: str, origin: str) -> dict[str, str]:
    bearer = {"Authorization": f"Bearer {credential}"}
    if kind == "bearer":
        return bearer
    answer = await client.post("/api/v1/session", headers=bearer)
    assert answer.status_code == 200, answer.text
    value = answer.cookies["lobu_session"]
    client.cookies.clear()
    return {"Cookie": f"lobu_session={value}", "Origin": origin}

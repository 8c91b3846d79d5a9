"""What a page lists: who is signed in, agents, conversations, turns. Whose they are, and what is shown of them."""

from __future__ import annotations

from typing import Any

import pytest

from edge.tokens import new_api_key
from lobu_actors.contract.events import EventType
from lobu_actors.contract.states import Role
from lobu_actors.store.records import Agent, ApiKey
from tests.fakes.http_server import Running


async def get(server: Running, path: str, key: str | None = None) -> Any:
    async with server.client(key) as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def key_of(server: Running, user_id: str) -> str:
    key, key_hash = new_api_key()
    await server.world.store.put_api_key(ApiKey(key_hash, "acme", user_id, Role.USER, "test"))
    return key


async def test_who_is_signed_in(server: Running) -> None:
    world = server.world
    assert await get(server, "/api/v1/session", world.user_key) == {
        "success": True, "organizationId": "acme", "userId": "ann", "role": "user", "boundTo": None,
    }  # fmt: skip
    ref = await world.conversation()
    token, _ = world.keys.sign(ref, "ann", 60)
    assert (await get(server, "/api/v1/session", token))["boundTo"] == ref.conversation_id


async def test_agents_are_those_that_one_may_use(server: Running) -> None:
    world = server.world
    hers = Agent("acme", "hers", "echo", owner_user_id="ann", model="p/m")
    off = Agent("acme", "off", "echo", disabled=True)
    await world.store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True), hers, off])
    shown = (await get(server, "/api/v1/agents", world.user_key))["agents"]
    assert shown == [
        {"agentId": "echo", "isDefault": True, "worker": "echo", "model": None},
        {"agentId": "hers", "isDefault": False, "worker": "echo", "model": "p/m"},
    ]
    bobs = await get(server, "/api/v1/agents", await key_of(server, "bob"))
    assert [agent["agentId"] for agent in bobs["agents"]] == ["echo"]
    token, _ = world.keys.sign(await world.conversation(), "ann", 60)
    assert [agent["agentId"] for agent in (await get(server, "/api/v1/agents", token))["agents"]] == ["echo"]
    assert (await get(server, "/api/v1/agents", world.bare_key))["agents"] == []


async def test_conversations_are_ones_own(server: Running) -> None:
    world = server.world
    first, second = await world.conversation("a"), await world.conversation("b")
    bobs = await world.conversation(user="bob")
    await world.message(first, "What is it?")
    shown = (await get(server, "/api/v1/conversations", world.user_key))["conversations"]
    assert [(one["agentId"], one["title"], one["queued"]) for one in shown] == [
        (first.conversation_id, "What is it?", 1),
        (second.conversation_id, None, 0),
    ]
    assert [one["agent"] for one in shown] == ["echo", "echo"]
    # An administrator may open every conversation, and has its own ones in the list all the same.
    assert (await get(server, "/api/v1/conversations"))["conversations"] == []
    theirs = await get(server, "/api/v1/conversations", await key_of(server, "bob"))
    assert [one["agentId"] for one in theirs["conversations"]] == [bobs.conversation_id]
    assert (await get(server, "/api/v1/conversations", world.other_key))["conversations"] == []
    token, _ = world.keys.sign(second, "ann", 60)
    bound = await get(server, "/api/v1/conversations?limit=1", token)
    assert [one["agentId"] for one in bound["conversations"]] == [second.conversation_id]


async def test_turns_are_ended_ones_in_pages_and_behind_them_what_is_owed(server: Running) -> None:
    world = server.world
    ref = await world.conversation()
    owner = await world.owner(ref)
    for number in range(5):
        turn = await world.message(ref, f"n{number}", f"m{number}")
        await owner.begin(turn)
        owner.say("done")
        await owner.end(turn, EventType.AGENT_ERROR if number == 4 else EventType.COMPLETE)
    running = await world.message(ref, "running", "m5")
    await owner.begin(running)
    await world.message(ref, "waiting", "m6")
    path = f"/api/v1/agents/{ref.conversation_id}/turns"
    page = await get(server, f"{path}?limit=3")
    assert [turn["messageId"] for turn in page["turns"]] == ["m2", "m3", "m4", "m5", "m6"]
    assert [turn["status"] for turn in page["turns"]] == ["completed", "completed", "failed", "running", "queued"]
    assert page["turns"][0]["end"]["data"]["finalText"] == "done"
    assert page["turns"][2]["end"]["event"] == "agent-error"
    assert page["turns"][2]["end"]["data"]["errorCode"] == "WORKER_CRASHED"
    assert page["turns"][3]["end"] is None
    assert page["since"] == running.first_seq
    rest = await get(server, f"{path}?limit=3&before={page['before']}")
    assert [turn["messageId"] for turn in rest["turns"]] == ["m0", "m1"]
    assert rest["before"] is None


@pytest.mark.parametrize(
    "path",
    [
        "conversations?limit=0",
        "conversations?limit=201",
        "conversations?limit=x",
        "agents/echo_ann_acme/turns?limit=101",
        "agents/echo_ann_acme/turns?before=-1",
        "agents/echo_ann_acme/turns?before=9999999999999999999",
    ],
)
async def test_numbers_have_bounds(server: Running, path: str) -> None:
    await server.world.conversation()
    async with server.client() as client:
        answer = await client.get(f"/api/v1/{path}")
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_FIELD")

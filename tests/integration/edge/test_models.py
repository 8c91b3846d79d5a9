"""Agents that demand a model: who may name it, and what a message gets when nobody does."""

from __future__ import annotations

from typing import Any

import pytest

from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.records import Agent, Turn
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import running

REF = ConversationRef("acme", "echo", "echo_ann_acme")
SENTENCE = "This agent has no model configured."


async def sent(
    body: dict[str, Any],
    *,
    agent_model: str | None = None,
    conversation_model: str | None = None,
    settings: dict[str, Any] | None = None,
    public_url: str | None = None,
) -> Turn:
    world = await EdgeWorld.make(EdgeSettings(public_url=public_url))
    demands = {"requires_model": True} if settings is None else settings
    agent = Agent("acme", "echo", "echo", is_default=True, model=agent_model, settings=demands)
    await world.store.apply_agents("acme", [agent])
    await world.store.open_conversation(REF, "ann", model=conversation_model)
    async with running(world) as server, server.client() as client:
        path = f"/api/v1/agents/{REF.conversation_id}/messages"
        answer = await client.post(path, json={"content": "hi", "messageId": "m"} | body)
        assert answer.status_code == 200, answer.text
    turn = await world.store.find_turn(REF, "m")
    assert isinstance(turn, Turn)
    return turn


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": None}, {"model": 7}])
async def test_nobody_names_one(body: dict[str, Any]) -> None:
    turn = await sent(body)
    assert turn.verdict is not None
    assert (turn.verdict.code, turn.verdict.error) == ("NO_MODEL_CONFIGURED", SENTENCE)


async def test_the_sentence_says_where_to_set_one() -> None:
    turn = await sent({}, public_url="https://chat.example/")
    assert turn.verdict is not None
    assert turn.verdict.error == f"{SENTENCE} Set one at https://chat.example/ops#agent=echo"


async def test_the_message_names_one() -> None:
    assert (await sent({"model": "openai/gpt"})).verdict is None


async def test_the_agent_names_one() -> None:
    assert (await sent({}, agent_model="openai/gpt")).verdict is None


async def test_the_conversation_names_one() -> None:
    assert (await sent({}, conversation_model="openai/gpt")).verdict is None


@pytest.mark.parametrize("settings", [{}, {"requires_model": False}, {"requires_model": "yes"}])
async def test_agents_that_demand_none(settings: dict[str, Any]) -> None:
    assert (await sent({}, settings=settings)).verdict is None


async def test_a_new_session_needs_no_model() -> None:
    assert (await sent({"content": "/new"})).verdict is None

"""Agents that demand a model: who may name it, and what a message gets when nobody does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.agent_rules import read_rules
from lobu_actors.conversation.apply import Effects
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.messages import Recovered
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.state import Limits, Moment, State
from lobu_actors.store.records import Agent, Turn, Verdict
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import parse_frames, running

REF = ConversationRef("acme", "echo", "echo_ann_acme")
SENTENCE = "This agent has no model configured."
PATH = "/ops#agent=echo"


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
    assert turn.verdict == Verdict("NO_MODEL_CONFIGURED", f"{SENTENCE} Set one at {PATH}", {"settingsUrl": PATH})


async def test_sentence_and_context_say_where_to_set_one() -> None:
    turn = await sent({}, public_url="https://chat.example/")
    assert turn.verdict is not None
    assert turn.verdict.error == f"{SENTENCE} Set one at https://chat.example{PATH}"
    assert turn.verdict.context == {"settingsUrl": f"https://chat.example{PATH}"}


async def test_the_client_is_told_where_to_set_one() -> None:
    """From the message over the store and what its owner decides to the frame that a reader gets."""
    world = await EdgeWorld.make(EdgeSettings(public_url="https://chat.example"))
    demanding = Agent("acme", "echo", "echo", is_default=True, settings={"requires_model": True})
    await world.store.apply_agents("acme", [demanding])
    ref = await world.conversation()
    async with running(world) as server, server.client() as client:
        path = f"/api/v1/agents/{ref.conversation_id}"
        assert (await client.post(f"{path}/messages", json={"content": "hi", "messageId": "m"})).status_code == 200
        await end_what_is_refused(world, ref)
        raw = (await client.get(f"{path}/events?messageId=m")).content
    _, told, alias = parse_frames(raw)
    assert (told.event, alias.event, told.data) == ("agent-error", "error", alias.data)
    assert told.data["errorCode"] == "NO_MODEL_CONFIGURED"
    assert told.data["errorContext"] == {"settingsUrl": f"https://chat.example{PATH}"}


async def end_what_is_refused(world: EdgeWorld, ref: ConversationRef) -> None:
    """What the conversation's actor does when it finds it."""
    await world.store.register_host("h", name="h", link_url=None, version="1", ttl_seconds=60)
    activation = await world.store.activate(ref, "h")
    nothing: Any = None
    workspaces: Any = SimpleNamespace(of=lambda ref: None)
    environment = Environment(
        host_id=lambda: "h",
        store=world.store,
        workers=nothing,
        workspaces=workspaces,
        feeds=world.gateway.feeds,
        timers=nothing,
        busy=nothing,
        promises=nothing,
        running=nothing,
        clock_ms=lambda: 1,
        limits=Limits(),
        max_owed_turns=9,
        patience=Patience(5),
        handover_seconds=1,
    )
    feed = world.gateway.feeds.hold(ref)
    effects = Effects(environment, activation, feed, read_rules(activation.agent), nothing, None)
    state = State(ref, Deadlines(), FailurePolicy(), Limits(), has_agent=True)
    _, wanted = decide(state, Recovered(activation.owed), Moment(0.0, "r"))
    for effect in wanted:
        await effects.apply(effect)


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

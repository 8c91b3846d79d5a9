"""Agents that belong to a user, and conversations that belong to one: who sees and uses which."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from edge.auth import Principal
from edge.tenancy import may_use_agent
from edge.tokens import new_api_key
from lobu_actors.contract.states import Role
from lobu_actors.store.records import Agent, ApiKey
from tests.fakes.http_server import Running

HERS = Agent("acme", "hers", "echo", owner_user_id="ann")


@pytest.fixture
async def bobs_key(server: Running) -> str:
    """The organization has an agent of everybody's and one of ann's own; bob is another of its users."""
    store = server.world.store
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True), HERS])
    key, key_hash = new_api_key()
    await store.put_api_key(ApiKey(key_hash, "acme", "bob", Role.USER, "test"))
    return key


async def open_one(server: Running, credential: str, **fields: Any) -> httpx.Response:
    async with server.client(credential) as client:
        return await client.post("/api/v1/agents", json=fields)


async def test_an_owned_agent_is_its_owners_and_the_administrators(server: Running, bobs_key: str) -> None:
    for dry_run in (True, False):
        hers = await open_one(server, server.world.user_key, agentId="hers", dryRun=dry_run)
        assert (hers.status_code, hers.json()["agentId"]) == (200 if dry_run else 201, "hers_ann_acme")
        admins = await open_one(server, server.world.admin_key, agentId="hers", userId="carl", dryRun=dry_run)
        assert (admins.status_code, admins.json()["agentId"]) == (200 if dry_run else 201, "hers_carl_acme")
        # To another user it looks as one does that is not there at all.
        refused = await open_one(server, bobs_key, agentId="hers", dryRun=dry_run)
        nothing = await open_one(server, bobs_key, agentId="nothing", dryRun=dry_run)
        assert refused.status_code == nothing.status_code == 404
        assert refused.json() == nothing.json()
        assert refused.json()["code"] == "AGENT_NOT_FOUND"
    assert await server.world.store.find_conversation("acme", "hers_bob_acme") is None


async def test_everybodys_agent_is_everybodys(server: Running, bobs_key: str) -> None:
    for fields in ({}, {"agentId": "echo"}):
        opened = await open_one(server, bobs_key, **fields)
        assert (opened.status_code, opened.json()["agentId"]) == (201, "echo_bob_acme")


async def test_an_owner_of_the_same_name_in_another_organization_is_another(server: Running, bobs_key: str) -> None:
    key, key_hash = new_api_key()
    await server.world.store.put_api_key(ApiKey(key_hash, "rival", "ann", Role.USER, "test"))
    assert (await open_one(server, key, agentId="hers")).status_code == 404
    await server.world.store.apply_agents(
        "rival",
        [Agent("rival", "echo", "echo", is_default=True), replace(HERS, organization_id="rival")],
    )
    assert (await open_one(server, key, agentId="hers")).json()["agentId"] == "hers_ann_rival"


def test_another_organizations_agent_is_nobodys_here() -> None:
    """Also when the store was asked wrongly."""
    for role in Role:
        principal = Principal("rival", "ann", role)
        assert not may_use_agent(principal, HERS)
        assert not may_use_agent(principal, replace(HERS, owner_user_id=None))


async def test_a_conversation_stays_its_users_when_its_agent_goes_to_another(server: Running, bobs_key: str) -> None:
    """What bob said and was answered is his; only opening asks for the agent, and that he may not any more."""
    assert (await open_one(server, bobs_key, agentId="echo")).status_code == 201
    await server.world.store.apply_agents(
        "acme",
        [Agent("acme", "other", "echo", is_default=True), Agent("acme", "echo", "echo", owner_user_id="ann")],
    )
    async with server.client(bobs_key) as client:
        assert (await client.get("/api/v1/agents/echo_bob_acme")).status_code == 200
    assert (await open_one(server, bobs_key, agentId="echo")).status_code == 404
    async with server.client(server.world.user_key) as client:  # owning the agent opens nobody's conversations
        assert (await client.get("/api/v1/agents/echo_bob_acme")).status_code == 404


@pytest.mark.parametrize("stored", [False, True], ids=["as first asked", "remembered by the edge"])
async def test_a_conversation_is_its_users_and_the_administrators(server: Running, bobs_key: str, stored: bool) -> None:
    """Also when the edge has looked it up before, for somebody who may use it."""
    ref = await server.world.conversation()
    path = f"/api/v1/agents/{ref.conversation_id}/messages"
    if stored:
        async with server.client(server.world.user_key) as client:
            assert (await client.post(path, json={"content": "mine"})).status_code == 200
    before = len(server.world.store.tables.turns)
    for credential, status in ((bobs_key, 404), (server.world.other_key, 404), (server.world.admin_key, 200)):
        async with server.client(credential) as client:
            assert (await client.post(path, json={"content": "hi"})).status_code == status
    assert len(server.world.store.tables.turns) == before + 1


async def test_an_organization_without_agents_says_what_is_missing(server: Running) -> None:
    for fields, code, words in [
        ({}, "NO_DEFAULT_AGENT", "no default agent"),
        ({"agentId": "echo"}, "AGENT_NOT_FOUND", "no such agent"),  # which two other organizations have
    ]:
        answer = await open_one(server, server.world.bare_key, **fields)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
        assert words in answer.json()["error"]

"""Organizations, API keys, agents: the same on both stores."""

from datetime import timedelta

import attrs
import pytest

from lobu_actors.contract.states import Role
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.records import Agent, ApiKey

KEY = ApiKey("ab" * 32, "acme", "ann", Role.USER, "laptop")


async def test_a_key_needs_its_organization(store):
    with pytest.raises(StoreRejected):
        await store.put_api_key(KEY)
    await store.ensure_organization("acme")
    await store.ensure_organization("acme")
    await store.put_api_key(KEY)
    found = await store.find_api_key(KEY.key_hash)
    assert attrs.evolve(found, created_at=None) == KEY
    assert found.created_at is not None
    assert await store.find_api_key("00") is None


async def test_putting_a_key_again_changes_it_but_lifts_no_revocation(store):
    await store.ensure_organization("acme")
    await store.put_api_key(KEY)
    await store.put_api_key(attrs.evolve(KEY, label="desk", role=Role.ADMIN))
    found = await store.find_api_key(KEY.key_hash)
    assert (found.label, found.role) == ("desk", Role.ADMIN)
    assert await store.revoke_api_key("acme", KEY.key_hash[:6]) == 1
    await store.put_api_key(KEY)
    assert await store.find_api_key(KEY.key_hash) is None
    [listed] = await store.list_api_keys("acme")
    assert listed.revoked_at is not None


async def test_a_key_of_another_organization_is_not_taken_over(store):
    for organization in ("acme", "other"):
        await store.ensure_organization(organization)
    await store.put_api_key(KEY)
    await store.put_api_key(attrs.evolve(KEY, organization_id="other", role=Role.ADMIN))
    found = await store.find_api_key(KEY.key_hash)
    assert (found.organization_id, found.role) == ("acme", Role.USER)
    assert await store.revoke_api_key("other", KEY.key_hash) == 0


async def test_expired_keys_are_not_found(store):
    await store.ensure_organization("acme")
    now = await store.now()
    await store.put_api_key(attrs.evolve(KEY, expires_at=now - timedelta(seconds=1)))
    assert await store.find_api_key(KEY.key_hash) is None
    await store.put_api_key(attrs.evolve(KEY, expires_at=now + timedelta(hours=1)))
    assert await store.find_api_key(KEY.key_hash) is not None


async def test_revoking_needs_one_match(store):
    await store.ensure_organization("acme")
    for last in "cd":
        await store.put_api_key(attrs.evolve(KEY, key_hash="ab" * 31 + "e" + last))
    assert await store.revoke_api_key("acme", "zz") == 0
    assert await store.revoke_api_key("acme", "ab") == -1
    assert all(key.revoked_at is None for key in await store.list_api_keys("acme"))
    assert await store.revoke_api_key("acme", "ab" * 31 + "ec") == 1
    # A prefix is text, no pattern.
    assert await store.revoke_api_key("acme", "%") == 0


async def test_agents_become_exactly_those_applied(store):
    await store.ensure_organization("acme")
    echo = Agent("acme", "echo", "echo", is_default=True, settings={"a": [1]}, policy={"deadlines": {}}, model="m/1")
    chat = Agent("acme", "chat", "openai")
    for _ in range(2):
        await store.apply_agents("acme", [echo, chat])
        assert await store.list_agents("acme") == [chat, echo]
    assert await store.find_agent("acme", None) == echo
    await store.apply_agents("acme", [attrs.evolve(chat, is_default=True)])
    assert (await store.find_agent("acme", None)).agent_id == "chat"
    assert await store.find_agent("acme", "echo") is None
    assert {agent.agent_id: agent.disabled for agent in await store.list_agents("acme")} == {
        "chat": False,
        "echo": True,
    }
    await store.apply_agents("acme", [])
    assert await store.find_agent("acme", None) is None
    await store.apply_agents("acme", [echo])
    assert await store.find_agent("acme", "echo") == echo


async def test_agents_of_another_organization_are_not_seen(store):
    for organization in ("acme", "other"):
        await store.ensure_organization(organization)
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True)])
    assert await store.find_agent("other", None) is None
    assert await store.find_agent("other", "echo") is None
    await store.apply_agents("other", [])
    assert await store.find_agent("acme", "echo") is not None

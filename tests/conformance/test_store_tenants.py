"""Organizations, API keys, agents: the same on both stores."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

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
    assert replace(found, created_at=None) == KEY
    assert found.created_at is not None
    assert await store.find_api_key("00") is None


async def test_putting_a_key_again_changes_it_but_lifts_no_revocation(store):
    await store.ensure_organization("acme")
    await store.put_api_key(KEY)
    await store.put_api_key(replace(KEY, label="desk", role=Role.ADMIN))
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
    await store.put_api_key(replace(KEY, organization_id="other", role=Role.ADMIN))
    found = await store.find_api_key(KEY.key_hash)
    assert (found.organization_id, found.role) == ("acme", Role.USER)
    assert await store.revoke_api_key("other", KEY.key_hash) == 0


async def test_expired_keys_are_not_found(store):
    await store.ensure_organization("acme")
    now = await store.now()
    await store.put_api_key(replace(KEY, expires_at=now - timedelta(seconds=1)))
    assert await store.find_api_key(KEY.key_hash) is None
    await store.put_api_key(replace(KEY, expires_at=now + timedelta(hours=1)))
    assert await store.find_api_key(KEY.key_hash) is not None


async def test_revoking_needs_one_match(store):
    await store.ensure_organization("acme")
    for last in "cd":
        await store.put_api_key(replace(KEY, key_hash="ab" * 31 + "e" + last))
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
    await store.apply_agents("acme", [replace(chat, is_default=True)])
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


DEFAULT = Agent("acme", "echo", "echo", is_default=True, settings={"a": 1}, policy={"deadlines": {}}, model="m/1")


async def test_organizations_without_a_default_agent_are_given_one_once(store):
    for organization in ("acme", "made-by-hand", "has-its-own", "left-without"):
        await store.ensure_organization(organization)
    await store.apply_agents("acme", [DEFAULT])
    own = Agent("has-its-own", "chat", "openai", is_default=True)
    await store.apply_agents("has-its-own", [own])
    other = Agent("left-without", "chat", "openai")
    await store.apply_agents("left-without", [other])
    assert await store.ensure_default_agents(DEFAULT) == ["left-without", "made-by-hand"]
    assert await store.ensure_default_agents(DEFAULT) == []
    assert await store.ensure_default_agents(replace(DEFAULT, agent_id="another")) == []
    for organization in ("made-by-hand", "left-without"):
        given = replace(DEFAULT, organization_id=organization)
        assert await store.find_agent(organization, None) == await store.find_agent(organization, "echo") == given
    assert await store.find_agent("left-without", "chat") == other
    assert await store.list_agents("has-its-own") == [own]
    assert await store.list_agents("acme") == [DEFAULT]


async def test_an_agent_of_the_defaults_id_is_used_as_it_is(store):
    for organization in ("idle", "gone", "owned"):
        await store.ensure_organization(organization)
    idle = Agent("idle", "echo", "theirs", settings={"mine": True}, model="x/2")
    await store.apply_agents("idle", [idle])
    await store.apply_agents("gone", [replace(idle, organization_id="gone")])
    await store.apply_agents("gone", [])
    owned = Agent("owned", "echo", "theirs", owner_user_id="ann")
    await store.apply_agents("owned", [owned])
    assert await store.ensure_default_agents(DEFAULT) == ["gone", "idle"]
    assert await store.list_agents("idle") == [replace(idle, is_default=True)]
    assert await store.list_agents("gone") == [replace(idle, organization_id="gone", is_default=True)]
    assert await store.list_agents("owned") == [owned]


async def test_the_default_moves_in_one_application(store):
    """From an agent to another, also against the order of their ids, and to one that was disabled before."""
    await store.ensure_organization("acme")
    agents = [Agent("acme", name, "echo") for name in ("a", "b", "c")]
    for default in ("a", "c", "b", "a"):
        given = [replace(agent, is_default=agent.agent_id == default) for agent in agents]
        await store.apply_agents("acme", given)
        assert await store.list_agents("acme") == given
    await store.apply_agents("acme", [replace(agents[2], is_default=True)])
    await store.apply_agents("acme", [replace(agents[0], is_default=True)])
    assert (await store.find_agent("acme", None)).agent_id == "a"


@pytest.mark.parametrize(
    "agents",
    [
        [Agent("acme", "a", "echo", is_default=True), Agent("acme", "b", "echo", is_default=True)],
        [Agent("acme", "a", "echo", is_default=True, disabled=True)],
        [Agent("acme", "a", "echo", is_default=True, owner_user_id="ann")],
    ],
    ids=["two", "disabled", "owned"],
)
async def test_a_default_agent_is_the_only_one_enabled_and_everybodys(store, agents):
    await store.ensure_organization("acme")
    await store.apply_agents("acme", [DEFAULT])
    with pytest.raises(StoreRejected):
        await store.apply_agents("acme", agents)
    assert await store.list_agents("acme") == [DEFAULT]


async def test_an_owner_is_kept(store):
    await store.ensure_organization("acme")
    owned = Agent("acme", "hers", "echo", owner_user_id="ann")
    await store.apply_agents("acme", [DEFAULT, owned])
    assert await store.find_agent("acme", "hers") == owned

"""Organizations, API keys and agents on Postgres. Knows nothing of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec.structs import asdict

from lobu_actors.store.driver import Row
from lobu_actors.store.postgres.rows import Params, Part, to_agent, to_api_key, to_json
from lobu_actors.store.queries import query
from lobu_actors.store.records import Agent, ApiKey

AGENTS_SECONDS = 10.0  # for one statement, and for waiting until another host has applied its agents


class TenantPart(Part):
    """Implements `protocol.TenantStore`."""

    async def ensure_organization(self, organization_id: str) -> None:
        await self.write("insert_organization_if_new", {"organization_id": organization_id})

    async def put_api_key(self, key: ApiKey) -> None:
        params = {
            "key_hash": key.key_hash,
            "organization_id": key.organization_id,
            "user_id": key.user_id,
            "role": key.role.value,
            "label": key.label,
            "expires_at": key.expires_at,
        }
        await self.write("upsert_api_key_keeping_revocation", params)

    async def find_api_key(self, key_hash: str) -> ApiKey | None:
        rows = await self.read("find_api_key_if_valid", {"key_hash": key_hash})
        return to_api_key(rows[0]) if rows else None

    async def list_api_keys(self, organization_id: str) -> list[ApiKey]:
        rows = await self.read("list_api_keys", {"organization_id": organization_id})
        return [to_api_key(row) for row in rows]

    async def revoke_api_key(self, organization_id: str, key_hash_prefix: str) -> int:
        params = {"organization_id": organization_id, "key_hash_prefix": key_hash_prefix}
        [(matching,)] = await self.write("revoke_api_key_if_prefix_is_unique", params)
        return int(matching) if matching <= 1 else -1

    async def apply_agents(self, organization_id: str, agents: Sequence[Agent]) -> None:
        given = [asdict(agent) for agent in agents]
        await self._write_agents("apply_agents", {"organization_id": organization_id, "agents": to_json(given)})

    async def ensure_default_agents(self, agent: Agent) -> list[str]:
        params = {
            "agent_id": agent.agent_id,
            "worker": agent.worker,
            "model": agent.model,
            "settings": to_json(agent.settings),
            "policy": to_json(agent.policy),
        }
        rows = await self._write_agents("give_default_agent_where_there_is_none", params)
        return sorted(organization_id for (organization_id,) in rows)

    async def _write_agents(self, name: str, params: Params) -> list[Row]:
        """One statement that begins, and so looks at the agents, when no other of its kind is under way."""
        async with self.pool.connection() as connection:
            ask = partial(connection.fetch, timeout_seconds=AGENTS_SECONDS)
            await ask(query("begin"), None, write=False)
            await ask(query("lock_agents"), None, write=False)
            rows = await ask(query(name), params, write=False)  # undone unless the commit is reached
            await ask(query("commit"), None, write=True)
        return rows

    async def find_agent(self, organization_id: str, agent_id: str | None) -> Agent | None:
        if agent_id is None:
            rows = await self.read("find_default_agent", {"organization_id": organization_id})
        else:
            rows = await self.read("find_agent", {"organization_id": organization_id, "agent_id": agent_id})
        return to_agent(rows[0]) if rows else None

    async def list_agents(self, organization_id: str) -> list[Agent]:
        rows = await self.read("list_agents", {"organization_id": organization_id})
        return [to_agent(row) for row in rows]

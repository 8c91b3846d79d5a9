"""Organizations, API keys and agents in memory."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.memory.tables import Part, as_stored, pass_checkpoint
from lobu_actors.store.records import Agent, ApiKey


class TenantPart(Part):
    """Implements `protocol.TenantStore`."""

    async def ensure_organization(self, organization_id: str) -> None:
        await pass_checkpoint()
        self.tables.organizations.add(organization_id)

    async def put_api_key(self, key: ApiKey) -> None:
        await pass_checkpoint()
        known = self.tables.api_keys.get(key.key_hash)
        if known is None:
            self._require_organization(key.organization_id)
            key = replace(key, created_at=self.tables.next_time(), revoked_at=None)
        elif known.organization_id == key.organization_id:
            key = replace(known, label=key.label, role=key.role, expires_at=key.expires_at)
        else:
            return
        self.tables.api_keys[key.key_hash] = key

    async def find_api_key(self, key_hash: str) -> ApiKey | None:
        await pass_checkpoint()
        key = self.tables.api_keys.get(key_hash)
        if key is None or key.revoked_at is not None:
            return None
        return key if key.expires_at is None or key.expires_at > self.tables.now() else None

    async def list_api_keys(self, organization_id: str) -> list[ApiKey]:
        await pass_checkpoint()
        return [key for key in self.tables.api_keys.values() if key.organization_id == organization_id]

    async def revoke_api_key(self, organization_id: str, key_hash_prefix: str) -> int:
        await pass_checkpoint()
        keys = self.tables.api_keys
        matching = [
            key
            for key in keys.values()
            if key.organization_id == organization_id and key.key_hash.startswith(key_hash_prefix)
        ]
        if len(matching) == 1:
            key = matching[0]
            keys[key.key_hash] = replace(key, revoked_at=key.revoked_at or self.tables.now())
        return len(matching) if len(matching) <= 1 else -1

    async def apply_agents(self, organization_id: str, agents: Sequence[Agent]) -> None:
        await pass_checkpoint()
        if agents:
            self._require_organization(organization_id)
        defaults = [agent for agent in agents if agent.is_default]
        if len(defaults) > 1 or any(agent.disabled or agent.owner_user_id is not None for agent in defaults):
            raise StoreRejected("a default agent is the only one, enabled, and nobody's own")
        given = {agent.agent_id for agent in agents}
        for (organization, agent_id), agent in list(self.tables.agents.items()):
            if organization == organization_id and agent_id not in given and not agent.disabled:
                self.tables.agents[organization, agent_id] = replace(agent, disabled=True, is_default=False)
        for agent in agents:
            self.tables.agents[organization_id, agent.agent_id] = _stored(agent, organization_id)

    async def ensure_default_agents(self, agent: Agent) -> list[str]:
        await pass_checkpoint()
        agents, given = self.tables.agents, []
        served = {one.organization_id for one in agents.values() if one.is_default}
        for organization_id in sorted(self.tables.organizations - served):
            place = (organization_id, agent.agent_id)
            stored = agents.get(place) or _stored(agent, organization_id)
            if stored.owner_user_id is None:
                agents[place] = replace(stored, is_default=True, disabled=False)
                given.append(organization_id)
        return given

    async def find_agent(self, organization_id: str, agent_id: str | None) -> Agent | None:
        for agent in await self.list_agents(organization_id):
            wanted = agent.is_default if agent_id is None else agent.agent_id == agent_id
            if wanted and not agent.disabled:
                return agent
        return None

    async def list_agents(self, organization_id: str) -> list[Agent]:
        await pass_checkpoint()
        found = [agent for agent in self.tables.agents.values() if agent.organization_id == organization_id]
        return sorted(found, key=lambda agent: agent.agent_id)

    def _require_organization(self, organization_id: str) -> None:
        if organization_id not in self.tables.organizations:
            raise StoreRejected(f"there is no organization {organization_id}")


def _stored(agent: Agent, organization_id: str) -> Agent:
    return replace(
        agent, organization_id=organization_id, settings=as_stored(agent.settings), policy=as_stored(agent.policy)
    )

"""What is done with organizations, keys, agents and tickets, on several stores at once."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs

from lobu_actors.contract.states import Role
from lobu_actors.store import records as r
from tests.properties.twin_calls import TwinCalls, newest

PAST, FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
TICKETS = 3
KEPT, OVER = 3600.0, -1.0
AGENTS = ("echo", "other", "third")


@attrs.define(slots=False)
class TenantOperations(TwinCalls):
    keys: list[str] = attrs.field(factory=list)

    async def op_key(self, a: int, b: int, c: int) -> None:
        """A new one, or one that is known, maybe to another organization. Some are of none that is there."""
        organization = "no-such-organization" if b == 3 else self.organizations[b % 2]
        key_hash = f"{self.organization}_{self.fresh('k')}" if a < 2 or not self.keys else newest(self.keys, a)
        expires_at = (None, None, FUTURE, PAST)[c]
        key = r.ApiKey(key_hash, organization, f"u{c}", (Role.ADMIN, Role.USER)[c % 2], f"label{self.ids}",
                       expires_at=expires_at)  # fmt: skip
        await self.write("put_api_key", key)
        self.keys.append(key_hash)

    async def op_revoke(self, a: int, b: int, c: int) -> None:
        """By a whole hash, by what may begin several, or by what begins none."""
        prefix = ("", f"{self.organization}_k", "x")[b - 1] if b else newest(self.keys, a) if self.keys else "x"
        await self.call("revoke_api_key", self.organizations[c % 2], prefix)

    async def op_agents(self, a: int, b: int, c: int) -> None:
        """b: which of them is the default; c 2: another one is disabled, 3: or somebody's own."""
        agents = [
            r.Agent(
                "", name, f"worker{c}", is_default=number == b, owner_user_id="u0" if c == 3 and number != b else None,
                model=f"m{c}" if c else None, settings={"a": [1, None]}, policy={"c": c},
                disabled=c == 2 and number != b,
            )
            for number, name in enumerate(AGENTS[:a])
        ]  # fmt: skip
        await self.call("apply_agents", self.organizations[c % 2], agents)

    async def op_default_agents(self, a: int, b: int, c: int) -> None:
        await self.call("ensure_default_agents", r.Agent("", AGENTS[a % 3], f"worker{c}", is_default=True))

    async def op_ticket(self, a: int, b: int, c: int) -> None:
        ticket_id, use_id = f"ticket{a % TICKETS}", f"use{b % 2}"
        kept_seconds = OVER if c == 3 else KEPT
        await self.write("use_ticket", self.organizations[int(b == 3)], ticket_id, use_id, kept_seconds=kept_seconds)

    async def compare_tenants(self) -> None:
        for organization in self.organizations:
            await self.call("list_api_keys", organization)
            await self.call("list_agents", organization)
            for agent_id in (None, *AGENTS):
                await self.call("find_agent", organization, agent_id)
            for number in range(TICKETS):
                await self.call("use_ticket", organization, f"ticket{number}", "the last", kept_seconds=KEPT)
        for key_hash in dict.fromkeys(self.keys):
            await self.call("find_api_key", key_hash)

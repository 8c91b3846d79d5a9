"""Membership and cluster-wide questions on Postgres. Every expiry is judged by the database's clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, HostState
from lobu_actors.store.link_records import NO_LINKS, Links
from lobu_actors.store.membership_protocol import HostLoad, Rival
from lobu_actors.store.owed_protocol import OwedNow, OwedTurn
from lobu_actors.store.postgres.rows import Part, from_links, to_host, to_json
from lobu_actors.store.records import Host, MarkerDeadline, Owed, Totals


class HostPart(Part):
    """Implements `protocol.HostStore`."""

    async def register_host(
        self,
        host_id: str,
        *,
        name: str,
        link_url: str | None,
        version: str,
        ttl_seconds: float,
        renew_seconds: float = 0.0,
        alone: Alone | None = None,
    ) -> None:
        params = {
            "host_id": host_id,
            "name": name,
            "link_url": link_url,
            "version": version,
            "ttl_seconds": float(ttl_seconds),
            "renew_seconds": float(renew_seconds),
            "alone": None if alone is None else alone.value,
        }
        await self.write_urgently("register_host", params)

    async def find_rivals(self, host_id: str) -> list[Rival]:
        rows = await self.read("find_rivals", {"host_id": host_id})
        return [
            Rival(rival_id, name, age, expires, None if alone is None else Alone(alone))
            for rival_id, name, age, expires, alone in rows
        ]

    async def renew_host(
        self,
        host_id: str,
        *,
        ttl_seconds: float,
        renew_seconds: float = 0.0,
        state: HostState,
        runs: int = 0,
        room: int | None = None,
        links: Links = NO_LINKS,
    ) -> HostState | None:
        params = {
            "host_id": host_id,
            "ttl_seconds": float(ttl_seconds),
            "renew_seconds": float(renew_seconds),
            "state": state.value,
            "runs": runs,
            "room": room,
            "links": from_links(links),
        }
        rows = await self.write_urgently("renew_host_unless_dead", params)
        return HostState(rows[0][0]) if rows else None

    async def drain_host(self, host_id: str) -> bool:
        return bool(await self.write("drain_host_if_alive", {"host_id": host_id}))

    async def find_loads(self) -> list[HostLoad]:
        rows = await self.read("find_loads")
        return [HostLoad(host_id, HostState(state), runs, room) for host_id, state, runs, room in rows]

    async def declare_host_dead(self, host_id: str) -> None:
        await self.write_urgently("declare_host_dead", {"host_id": host_id})

    async def find_held(self, host_id: str, refs: Collection[ConversationRef]) -> set[ConversationRef]:
        params = {
            "host_id": host_id,
            "organization_ids": [ref.organization_id for ref in refs],
            "conversation_ids": [ref.conversation_id for ref in refs],
        }
        held = set(await self.read("find_held", params))
        return {ref for ref in refs if (ref.organization_id, ref.conversation_id) in held}

    async def list_hosts(self) -> list[Host]:
        return [to_host(row) for row in await self.read("list_hosts")]

    async def list_newest_hosts(self, *, limit: int) -> list[Host]:
        rows = await self.read("list_newest_hosts", {"limit": limit})
        return [to_host((*of_row, 0, 0, 0, 0, age, links)) for *of_row, age, links in rows]

    async def find_owed(self, host_id: str, *, limit: int, older_than_seconds: float) -> list[Owed]:
        """What nobody holds comes first, then our own idle ones, then our own running ones; each oldest first."""
        params = {"host_id": host_id, "limit": limit, "older_than_seconds": float(older_than_seconds)}
        rows = await self.read("find_owed", params)
        return [Owed(ConversationRef(*names), closing) for *names, closing in rows]

    async def extend_deadlines(self, host_id: str, deadlines: Sequence[MarkerDeadline]) -> set[str]:
        rows = await self.write("extend_deadlines_if_lease_held", {"host_id": host_id, "deadlines": to_json(deadlines)})
        return {turn_id for (turn_id,) in rows}

    async def find_overdue(self, *, limit: int) -> list[ConversationRef]:
        return [ConversationRef(*row) for row in await self.read("find_overdue", {"limit": limit})]

    async def totals(self, organization_id: str | None = None) -> Totals:
        [row] = await self.read("totals", {"organization_id": organization_id})
        return Totals(*row)

    async def count_owed(self, organization_id: str | None = None) -> OwedNow:
        [row] = await self.read("count_owed", {"organization_id": organization_id})
        return OwedNow(*row)

    async def list_owed(self, organization_id: str, *, limit: int) -> list[OwedTurn]:
        rows = await self.read("list_owed", {"organization_id": organization_id, "limit": limit})
        return [OwedTurn(*row) for row in rows]

    async def now(self) -> datetime:
        [(now,)] = await self.read("now")
        if not isinstance(now, datetime):
            raise TypeError("the database's clock is not a time")
        return now

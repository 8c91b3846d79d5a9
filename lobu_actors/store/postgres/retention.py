"""Retention on Postgres: finding and deleting what is old, and bounding the number of segments. See retention.sql."""

from __future__ import annotations

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres.rows import Part, ref_params
from lobu_actors.store.records import Compacted, Trimmable, Trimmed

_BEFORE_ALL = ConversationRef("", "", "")


class RetentionPart(Part):
    """Implements `protocol.RetentionStore`."""

    async def find_trimmable(
        self, after: ConversationRef | None, *, older_than_seconds: float, max_segments: int, limit: int
    ) -> list[Trimmable]:
        params = ref_params(after or _BEFORE_ALL) | {
            "older_than_seconds": float(older_than_seconds),
            "max_segments": max_segments,
            "limit": limit,
        }
        return [
            Trimmable(ConversationRef(organization_id, agent_id, conversation_id), bool(old), segments)
            for organization_id, agent_id, conversation_id, old, segments in await self.read("find_trimmable", params)
        ]

    async def trim(self, ref: ConversationRef, *, older_than_seconds: float, limit: int) -> Trimmed:
        """Two statements, so that a turn's run is looked at once its turn is gone; each stands on its own."""
        params = ref_params(ref) | {"older_than_seconds": float(older_than_seconds), "limit": limit}
        [(turns, events, questions, files)] = await self.write("trim_conversation_unless_busy", params)
        [(segments, runs)] = await self.write("trim_leftovers", params)
        return Trimmed(turns, events, segments, runs, questions, files, more=max(events, runs) >= limit)

    async def compact(self, ref: ConversationRef) -> Compacted:
        [(exists, matches, replaced)] = await self.write("compact_snapshot_if_it_matches_its_hash", ref_params(ref))
        return Compacted(replaced, corrupt=exists and not matches)

    async def delete_dead_hosts(self, *, older_than_seconds: float, limit: int) -> list[str]:
        """Two statements: what the second one looks at is what the first one left, and each stands on its own."""
        params = {"older_than_seconds": float(older_than_seconds), "limit": limit}
        await self.write("release_leases_of_hosts_gone_for_long", params)
        rows = await self.write("delete_hosts_gone_for_long_unless_they_hold_something", params)
        return sorted(host_id for (host_id,) in rows)

"""Sessions on Postgres: beginning a new one, and snapshots that workers post themselves. See queries/sessions.sql."""

from __future__ import annotations

from msgspec.structs import asdict

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres.rows import Part, lease_params, ref_params
from lobu_actors.store.records import Lease, NewSession


class SessionPart(Part):
    """Implements `protocol.SessionStore`."""

    async def reset_session(self, lease: Lease, session: NewSession) -> int | None:
        params = lease_params(lease) | asdict(session)
        rows = await self.write("reset_session_if_lease_held", params)
        if not rows:
            rows = await self.read("find_later_generation", params)
        return rows[0][0] if rows else None

    async def purge_snapshots(self, lease: Lease) -> int | None:
        rows = await self.write("purge_snapshots_if_lease_held", lease_params(lease))
        return rows[0][0] if rows else None

    async def is_run_live(self, ref: ConversationRef, run_id: str) -> bool:
        return bool(await self.read("is_run_live", ref_params(ref) | {"run_id": run_id}))

    async def post_snapshot(self, ref: ConversationRef, run_id: str, data: bytes) -> bool | None:
        params = ref_params(ref) | {"run_id": run_id, "data": data}
        if await self.write("post_snapshot_if_run_live", params):
            await self.discard_posted_snapshots(ref)  # so that a conversation never has more than one of a lost run
            return True
        return False if await self.is_run_live(ref, run_id) else None

    async def read_posted_snapshot(self, ref: ConversationRef, run_id: str) -> bytes | None:
        rows = await self.read("read_posted_snapshot", ref_params(ref) | {"run_id": run_id}, binary=True)
        return bytes(rows[0][0]) if rows else None

    async def discard_posted_snapshots(self, ref: ConversationRef) -> None:
        await self.write("discard_posted_snapshots", ref_params(ref))

    async def read_carried_summary(self, ref: ConversationRef) -> str | None:
        rows = await self.read("read_carried_summary", ref_params(ref))
        return rows[0][0] if rows else None

    async def name_provider(self, ref: ConversationRef, provider: str) -> None:
        await self.write("name_provider_if_unnamed", ref_params(ref) | {"provider": provider})

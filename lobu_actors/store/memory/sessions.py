"""Sessions in memory: beginning a new one, and snapshots that workers post themselves."""

from __future__ import annotations

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.memory.tables import Part, pass_checkpoint
from lobu_actors.store.records import Lease, NewSession


class SessionPart(Part):
    """Implements `protocol.SessionStore`."""

    async def reset_session(self, lease: Lease, session: NewSession) -> int | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return None
        if row.generation == session.generation:
            row.generation += 1
            row.carried_summary = session.summary
            row.provider, row.model = session.provider or row.provider, session.model or row.model
            row.segments.clear()
            row.posted.clear()
            row.last_activity_at = self.tables.now()
        return row.generation if row.generation > session.generation else None

    async def purge_snapshots(self, lease: Lease) -> int | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return None
        number = len(row.segments)
        row.segments.clear()
        row.posted.clear()
        return number

    async def is_run_live(self, ref: ConversationRef, run_id: str) -> bool:
        await pass_checkpoint()
        return self._lives(ref, run_id)

    async def post_snapshot(self, ref: ConversationRef, run_id: str, data: bytes) -> bool | None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None or not self._lives(ref, run_id):
            return None
        if run_id in row.posted:
            return False
        row.posted = {known: kept for known, kept in row.posted.items() if self._lives(ref, known)} | {run_id: data}
        return True

    async def read_posted_snapshot(self, ref: ConversationRef, run_id: str) -> bytes | None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        return None if row is None else row.posted.get(run_id)

    async def discard_posted_snapshots(self, ref: ConversationRef) -> None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is not None:
            row.posted = {run_id: data for run_id, data in row.posted.items() if self._lives(ref, run_id)}

    async def read_carried_summary(self, ref: ConversationRef) -> str | None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        return None if row is None else row.carried_summary

    async def name_provider(self, ref: ConversationRef, provider: str) -> None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is not None:
            row.provider = row.provider or provider

    def _lives(self, ref: ConversationRef, run_id: str) -> bool:
        return any(run.record.run_id == run_id for run in self.tables.live_runs(ref))

"""Membership and cluster-wide questions in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState
from lobu_actors.store.memory.tables import HostRow, Part, pass_checkpoint
from lobu_actors.store.records import Host, MarkerDeadline, Owed, Totals

ABANDONED, IDLE, BUSY = 1, 2, 3


class HostPart(Part):
    """Implements `protocol.HostStore`."""

    async def register_host(
        self, host_id: str, *, name: str, link_url: str | None, version: str, ttl_seconds: float
    ) -> None:
        await pass_checkpoint()
        known = self.tables.hosts.get(host_id)
        if known is None or known.state is not HostState.DEAD:
            expires_at = self.tables.clock() + ttl_seconds
            self.tables.hosts[host_id] = HostRow(host_id, name, link_url, version, HostState.ACTIVE, expires_at)

    async def renew_host(self, host_id: str, *, ttl_seconds: float, state: HostState) -> bool:
        await pass_checkpoint()
        host = self.tables.hosts.get(host_id)
        if host is None or host.state is HostState.DEAD:
            return False
        host.expires_at, host.state = self.tables.clock() + ttl_seconds, state
        return True

    async def declare_host_dead(self, host_id: str) -> None:
        await pass_checkpoint()
        host = self.tables.hosts.get(host_id)
        if host is not None:
            host.state, host.expires_at = HostState.DEAD, min(host.expires_at, self.tables.clock())

    async def find_held(self, host_id: str, refs: Collection[ConversationRef]) -> set[ConversationRef]:
        await pass_checkpoint()
        leases = ((ref, self.tables.leases.get((ref.organization_id, ref.conversation_id))) for ref in refs)
        return {ref for ref, lease in leases if lease is not None and lease.host_id == host_id}

    async def list_hosts(self) -> list[Host]:
        await pass_checkpoint()
        now = self.tables.clock()
        held = [lease.host_id for lease in self.tables.leases.values()]
        return [
            Host(
                host.host_id,
                host.name,
                host.link_url,
                host.version,
                host.state,
                host.expires_at - now,
                held.count(host.host_id),
            )
            for host in sorted(self.tables.hosts.values(), key=lambda host: (-host.expires_at, host.host_id))
        ]

    async def find_owed(self, host_id: str, *, limit: int, older_than_seconds: float) -> list[Owed]:
        await pass_checkpoint()
        before = self.tables.now() - timedelta(seconds=older_than_seconds)
        found: dict[ConversationRef, tuple[int, datetime]] = {}
        closing: set[ConversationRef] = set()

        def add(ref: ConversationRef, since: datetime, close: bool) -> None:
            rank = self._rank(ref, host_id)
            if rank is not None and since <= before:
                entry = (ABANDONED if close else rank, since)
                found[ref] = min(found.get(ref, entry), entry)
                if close:
                    closing.add(ref)

        for marker in self.tables.markers.values():
            if self.tables.conversation(marker.ref) is not None:
                add(marker.ref, marker.accepted_at, close=False)
        for row in self.tables.conversations.values():
            if row.closing_at is not None and row.closed_at is None:
                add(row.ref, row.closing_at, close=True)
        refs = sorted(found, key=lambda ref: (*found[ref], ref.organization_id, ref.conversation_id))
        return [Owed(ref, ref in closing) for ref in refs[:limit]]

    def _rank(self, ref: ConversationRef, host_id: str) -> int | None:
        """None: another live host is responsible."""
        lease = self.tables.leases.get((ref.organization_id, ref.conversation_id))
        if lease is None or lease.host_id != host_id:
            return None if lease is not None and self.tables.host_lives(lease.host_id) else ABANDONED
        return BUSY if any(self.tables.live_runs(ref)) else IDLE

    async def extend_deadlines(self, host_id: str, deadlines: Sequence[MarkerDeadline]) -> set[str]:
        await pass_checkpoint()
        moved: set[str] = set()
        for wanted in deadlines:
            marker = self.tables.markers.get((wanted.organization_id, wanted.turn_id))
            if marker is not None and (marker.host_id, marker.run_id) == (host_id, wanted.run_id):
                marker.deadline = self.tables.clock() + wanted.seconds
                moved.add(wanted.turn_id)
        return moved

    async def find_overdue(self, *, limit: int) -> list[ConversationRef]:
        await pass_checkpoint()
        now = self.tables.clock()
        found: dict[ConversationRef, float] = {}
        for marker in self.tables.markers.values():
            if marker.run_id is not None and marker.deadline is not None and marker.deadline <= now:
                found[marker.ref] = min(found.get(marker.ref, marker.deadline), marker.deadline)
        return sorted(found, key=lambda ref: found[ref])[:limit]

    async def totals(self, organization_id: str | None = None) -> Totals:
        await pass_checkpoint()

        def counted(ref: ConversationRef) -> bool:
            return organization_id in (None, ref.organization_id)

        owed = [marker for marker in self.tables.markers.values() if counted(marker.ref)]
        running = sum(marker.run_id is not None for marker in owed)
        oldest = min((marker.accepted_at for marker in owed), default=None)
        return Totals(
            conversations=sum(counted(c.ref) and c.closed_at is None for c in self.tables.conversations.values()),
            queued=len(owed) - running,
            running=running,
            oldest_owed_seconds=None if oldest is None else (self.tables.now() - oldest).total_seconds(),
        )

    async def now(self) -> datetime:
        await pass_checkpoint()
        return self.tables.now()

"""Membership and cluster-wide questions in memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, HostState
from lobu_actors.store.link_records import NO_LINKS, Links
from lobu_actors.store.membership_protocol import HostLoad, Rival
from lobu_actors.store.memory.tables import HostRow, Part, pass_checkpoint
from lobu_actors.store.owed_protocol import OwedNow, OwedTurn
from lobu_actors.store.records import Host, MarkerDeadline, Owed, Totals

ABANDONED, IDLE, BUSY = 1, 2, 3


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
        await pass_checkpoint()
        now = self.tables.clock()
        judges_from = self._judges_from(host_id, now, ttl_seconds)
        for other in self.tables.hosts.values():
            if other.host_id != host_id and other.expires_at <= now and (alone or other.alone):
                other.state = HostState.DEAD
        known = self.tables.hosts.get(host_id)
        if known is None or known.state is not HostState.DEAD:
            self.tables.hosts[host_id] = HostRow(
                host_id,
                name,
                link_url,
                version,
                HostState.ACTIVE,
                now + ttl_seconds,
                judges_from=judges_from,
                judges_until=now + ttl_seconds - renew_seconds,
                started_at=now if known is None else known.started_at,
                alone=alone,
                runs=0 if known is None else known.runs,
                links=NO_LINKS if known is None else known.links,
            )

    def _judges_from(self, host_id: str, now: float, ttl_seconds: float) -> float:
        others = [
            host for host in self.tables.hosts.values() if host.host_id != host_id and host.state is not HostState.DEAD
        ]
        expired = any(host.expires_at <= now for host in others)
        judged = any(host.expires_at > now and host.judges_from <= now < host.judges_until for host in others)
        return now + ttl_seconds if expired and not judged else -math.inf

    async def find_rivals(self, host_id: str) -> list[Rival]:
        await pass_checkpoint()
        me, now = self.tables.hosts.get(host_id), self.tables.clock()
        others = [host for host in self._live() if host is not me]
        return [
            Rival(host.host_id, host.name, now - host.started_at, host.expires_at - now, host.alone)
            for host in sorted(others, key=lambda host: (host.started_at, host.host_id))
            if me is not None and (me.alone or host.alone)
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
        await pass_checkpoint()
        host = self.tables.hosts.get(host_id)
        if host is None or host.state is HostState.DEAD:
            return None
        now = self.tables.clock()
        if host.judges_until <= now:
            host.judges_from = now + ttl_seconds
        host.judges_until = now + ttl_seconds - renew_seconds
        host.expires_at, host.runs, host.room, host.links = now + ttl_seconds, runs, room, links
        host.state = HostState.DRAINING if host.state is HostState.DRAINING else state
        return host.state

    async def drain_host(self, host_id: str) -> bool:
        await pass_checkpoint()
        alive = self.tables.host_lives(host_id)
        if alive:
            self.tables.hosts[host_id].state = HostState.DRAINING
        return alive

    async def find_loads(self) -> list[HostLoad]:
        await pass_checkpoint()
        return [
            HostLoad(host.host_id, host.state, host.runs, host.room)
            for host in sorted(self._live(), key=lambda host: host.host_id)
        ]

    def _live(self) -> list[HostRow]:
        return [host for host in self.tables.hosts.values() if self.tables.host_lives(host.host_id)]

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
        held = Counter[str | None]()
        epochs = Counter[str | None]()
        for lease in (*self.tables.leases.values(), *self.tables.singletons.values()):
            held[lease.host_id] += 1
            epochs[lease.host_id] += lease.epoch
        queued = Counter[str | None]()
        running = Counter[str | None]()
        for marker in self.tables.markers.values():
            if marker.run_id is not None:
                running[marker.host_id] += 1
            elif kept := self.tables.leases.get((marker.ref.organization_id, marker.ref.conversation_id)):
                queued[kept.host_id] += 1
        return [
            Host(
                host.host_id,
                host.name,
                host.link_url,
                host.version,
                host.state,
                host.expires_at - now,
                held[host.host_id],
                epochs[host.host_id],
                queued[host.host_id],
                running[host.host_id],
                now - host.started_at,
                host.links,
            )
            for host in sorted(self.tables.hosts.values(), key=lambda host: (-host.expires_at, host.host_id))
        ]

    async def list_newest_hosts(self, *, limit: int) -> list[Host]:
        counted = await self.list_hosts()
        return [replace(host, leases=0, epochs=0, queued=0, running=0) for host in counted[:limit]]

    async def find_owed(self, host_id: str, *, limit: int, older_than_seconds: float) -> list[Owed]:
        await pass_checkpoint()
        before = self.tables.now() - timedelta(seconds=older_than_seconds)
        found: dict[ConversationRef, tuple[int, datetime]] = {}
        closing: set[ConversationRef] = set()

        def add(ref: ConversationRef, since: datetime, close: bool) -> None:
            rank = self._rank(ref, host_id)
            if rank is not None and since <= before:
                rank = ABANDONED if close else rank
                known_rank, known_since = found.get(ref, (rank, since))
                found[ref] = min(known_rank, rank), min(known_since, since)
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
            if marker is None or (marker.host_id, marker.run_id) != (host_id, wanted.run_id):
                continue
            lease = self.tables.leases.get((marker.ref.organization_id, marker.ref.conversation_id))
            if lease is not None and lease.host_id == host_id:
                marker.deadline = self.tables.clock() + wanted.seconds
                marker.provider_failed_code = wanted.provider_failed_code
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

    async def count_owed(self, organization_id: str | None = None) -> OwedNow:
        found = await self.totals(organization_id)
        return OwedNow(found.queued, found.running, found.oldest_owed_seconds or 0.0)

    async def list_owed(self, organization_id: str, *, limit: int) -> list[OwedTurn]:
        await pass_checkpoint()
        now = self.tables.now()
        markers = [marker for marker in self.tables.markers.values() if marker.ref.organization_id == organization_id]
        markers.sort(key=lambda marker: (marker.accepted_at, marker.turn_id))
        found: list[OwedTurn] = []
        for marker in markers[:limit]:
            turn = self.tables.turns.get((organization_id, marker.turn_id))
            found.append(
                OwedTurn(
                    marker.ref.conversation_id,
                    marker.turn_id,
                    None if turn is None else turn.message_id,
                    1 if turn is None else turn.attempt,
                    None if marker.run_id is None else marker.host_id,
                    (now - marker.accepted_at).total_seconds(),
                )
            )
        return found

    async def now(self) -> datetime:
        await pass_checkpoint()
        return self.tables.now()

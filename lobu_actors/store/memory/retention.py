"""Retention in memory: what is old goes, and segments are bounded. Ages are those of events and of ended runs."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from lobu_actors.contract.events import TERMINAL_EVENTS
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES, RunStatus
from lobu_actors.store.memory.tables import ConversationRow, Part, pass_checkpoint
from lobu_actors.store.records import Compacted, Segment, Trimmable, Trimmed


class RetentionPart(Part):
    """Implements `protocol.RetentionStore`."""

    async def find_trimmable(
        self, after: ConversationRef | None, *, older_than_seconds: float, max_segments: int, limit: int
    ) -> list[Trimmable]:
        await pass_checkpoint()
        cutoff = self._cutoff(older_than_seconds)
        rows = sorted(self.tables.conversations.values(), key=lambda row: _key(row.ref))
        page = [row for row in rows if after is None or _key(row.ref) > _key(after)][:limit]
        return [
            Trimmable(
                row.ref,
                bool(row.event_times and row.event_times[0] < cutoff) or bool(self._superseded(row, cutoff)),
                min(len(row.segments), max_segments + 1),
            )
            for row in page
        ]

    async def trim(self, ref: ConversationRef, *, older_than_seconds: float, limit: int) -> Trimmed:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None:
            return Trimmed(turns=0, events=0, segments=0, runs=0, questions=0, files=0, more=False)
        cutoff = self._cutoff(older_than_seconds)
        cut = self._cut(row, cutoff, limit)
        turns, questions, files = self._drop_turns(row, cut)
        del row.events[:cut], row.event_times[:cut]
        row.trimmed_to_seq += cut
        superseded = self._superseded(row, cutoff)
        row.segments = [pair for pair in row.segments if pair not in superseded]
        runs = self._drop_runs(row, cutoff, limit)
        return Trimmed(turns, cut, len(superseded), runs, questions, files, more=max(cut, runs) >= limit)

    async def compact(self, ref: ConversationRef) -> Compacted:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        chain = [] if row is None else _chain(row)
        if row is None or not chain:
            return Compacted(0, corrupt=False)
        run_id, last = chain[-1]
        data = b"".join(segment.data for _, segment in chain)
        if len(data) != last.total_length or hashlib.sha256(data).hexdigest() != last.sha256:
            return Compacted(0, corrupt=True)
        replaced = len(row.segments) - 1
        row.segments[:] = [(run_id, Segment(last.generation, 0, last.total_length, last.sha256, data))]
        return Compacted(replaced, corrupt=False)

    async def delete_dead_hosts(self, *, older_than_seconds: float, limit: int) -> list[str]:
        await pass_checkpoint()
        tables, before = self.tables, self.tables.clock() - older_than_seconds
        over = sorted((host for host in tables.hosts.values() if host.expires_at < before), key=lambda h: h.expires_at)
        owing = {(marker.ref.organization_id, marker.ref.conversation_id) for marker in tables.markers.values()}
        idle = [lease for key, lease in tables.leases.items() if key not in owing]
        left = [lease for lease in (*idle, *tables.singletons.values()) if lease.host_id in {h.host_id for h in over}]
        for lease in left[:limit]:
            lease.host_id = None
        named = {lease.host_id for lease in (*tables.leases.values(), *tables.singletons.values())}
        named |= {marker.host_id for marker in tables.markers.values()}
        gone = [host.host_id for host in over if host.host_id not in named][:limit]
        for host_id in gone:
            del tables.hosts[host_id]
        return sorted(gone)

    def _cutoff(self, older_than_seconds: float) -> datetime:
        return self.tables.now() - timedelta(seconds=older_than_seconds)

    def _cut(self, row: ConversationRow, cutoff: datetime, limit: int) -> int:
        """How many events from the log's beginning are old and of no use to a reader of an owed turn."""
        organization = row.ref.organization_id
        owed = [self.tables.turns.get((organization, marker.turn_id)) for marker in self.tables.owed(row.ref)]
        most = min([limit, len(row.events), *(turn.first_seq - 1 - row.trimmed_to_seq for turn in owed if turn)])
        young = next((number for number, at in enumerate(row.event_times) if at >= cutoff), len(row.events))
        return max(min(most, young), 0)

    def _drop_turns(self, row: ConversationRow, cut: int) -> tuple[int, int, int]:
        organization = row.ref.organization_id
        gone = set()
        for event, _ in row.events[:cut]:
            turn = self.tables.turns.get((organization, event.turn_id or ""))
            if turn is not None and event.type in TERMINAL_EVENTS and turn.status in TERMINAL_TURN_STATUSES:
                gone.add(turn.turn_id)
                del self.tables.turns[organization, turn.turn_id]
                self.tables.turn_of_message.pop((row.ref, turn.message_id), None)
        asked = [key for key, question in self.tables.questions.items() if question.turn_id in gone]
        for key in asked:
            del self.tables.questions[key]
        bound = [file for file in self.tables.files.values() if file.turn_id in gone]
        for file in bound:
            file.turn_id, file.expires_at = None, self.tables.clock()
        return len(gone), len(asked), len(bound)

    def _drop_runs(self, row: ConversationRow, cutoff: datetime, limit: int) -> int:
        organization = row.ref.organization_id
        kept = {run_id for run_id, _ in row.segments}
        idle = [
            key
            for key, run in self.tables.runs.items()
            if run.ref == row.ref
            and run.record.status is not RunStatus.LIVE
            and run.ended_at is not None
            and run.ended_at < cutoff
            and key[1] not in kept
            and not any((organization, turn_id) in self.tables.turns for turn_id in run.record.turn_ids)
        ]
        for key in idle[:limit]:
            del self.tables.runs[key]
        return len(idle[:limit])

    def _superseded(self, row: ConversationRow, cutoff: datetime) -> list[tuple[str, Segment]]:
        current = _chain(row)
        return [pair for pair in row.segments if pair not in current and self._is_old(row.ref, pair[0], cutoff)]

    def _is_old(self, ref: ConversationRef, run_id: str, cutoff: datetime) -> bool:
        run = self.tables.runs.get((ref.organization_id, run_id))
        return run is None or (run.ended_at is not None and run.ended_at < cutoff)


def _key(ref: ConversationRef) -> tuple[str, str, str]:
    return ref.organization_id, ref.agent_id, ref.conversation_id


def _chain(row: ConversationRow) -> list[tuple[str, Segment]]:
    """The newest whole segment of the current generation and the suffixes behind it."""
    current = [pair for pair in row.segments if pair[1].generation == row.generation]
    whole = [number for number, (_, segment) in enumerate(current) if segment.base_length == 0]
    return current[whole[-1] if whole else 0 :]

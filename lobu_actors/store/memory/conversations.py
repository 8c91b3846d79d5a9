"""What an edge does, in memory: conversations, accepting turns, reading events and snapshots."""

from __future__ import annotations

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.memory.tables import ConversationRow, MarkerRow, Part, as_stored, pass_checkpoint
from lobu_actors.store.records import Accepted, Conversation, Event, NewTurn, Refused, StartRun, Turn
from lobu_actors.store.snapshots import join_segments
from lobu_actors.store.standby_records import NextRun


class ConversationPart(Part):
    """Implements `protocol.ConversationStore`."""

    async def open_conversation(
        self, ref: ConversationRef, user_id: str, *, model: str | None = None, provider: str | None = None
    ) -> Conversation:
        await pass_checkpoint()
        key = (ref.organization_id, ref.conversation_id)
        row = self.tables.conversations.get(key)
        if row is None:
            if ref.organization_id not in self.tables.organizations:
                raise StoreRejected(f"there is no organization {ref.organization_id}")
            now = self.tables.next_time()
            row = self.tables.conversations[key] = ConversationRow(ref, user_id, now, now, model, provider)
        elif row.closed_at is not None and row.ref == ref and row.user_id == user_id:
            row.generation += 1
            row.closing_at = row.closed_at = row.carried_summary = None
            row.last_activity_at = self.tables.now()
            row.model, row.provider = model or row.model, provider or row.provider
        return self.tables.view(row)

    async def find_conversation(self, organization_id: str, conversation_id: str) -> Conversation | None:
        await pass_checkpoint()
        row = self.tables.conversations.get((organization_id, conversation_id))
        return None if row is None else self.tables.view(row)

    async def list_conversations(self, organization_id: str, *, limit: int) -> list[Conversation]:
        await pass_checkpoint()
        rows = [row for row in self.tables.conversations.values() if row.ref.organization_id == organization_id]
        rows.sort(key=lambda row: row.created_at, reverse=True)
        return [self.tables.view(row) for row in rows[:limit]]

    async def accept_turn(self, turn: NewTurn, *, max_owed: int, run: NextRun | None = None) -> Accepted | Refused:
        await pass_checkpoint()
        known = self.tables.turn_of_message.get((turn.ref, turn.message_id))
        if known is not None:
            return Accepted(known, created=False, begun=run is not None and self._has_begun(run))
        row = self.tables.conversation(turn.ref)
        if row is None:
            return Refused("missing")
        if row.closing_at is not None:
            return Refused("closed")
        owed = len(self.tables.owed(turn.ref))
        if owed and turn.on_busy is OnBusy.REJECT:
            return Refused("busy")
        if owed >= max_owed:
            return Refused("full")
        if (turn.ref.organization_id, turn.turn_id) in self.tables.turns:
            raise StoreRejected("this turn_id belongs to another message")
        brought = [self.tables.files.get((turn.ref.organization_id, file_id)) for file_id in turn.file_ids]
        ready = [row for row in brought if row and row.file.ref == turn.ref and row.turn_id is None and row.sha256]
        if len(ready) != len(brought):
            raise StoreRejected("its files are not there")
        for row_of_file in ready:
            row_of_file.turn_id = turn.turn_id
        accepted = self._insert(turn, owed, row.last_seq)
        if run is None or owed or not self.tables.holds(run.lease) or any(self.tables.live_runs(turn.ref)):
            return Accepted(accepted, created=True)
        start = StartRun(run.run_id, (turn.turn_id,), 1, run.worker_pid, run.worker_started_at)
        self.tables.begin_run(run.lease, start)
        return Accepted(accepted, created=True, begun=True)

    def _has_begun(self, run: NextRun) -> bool:
        return self.tables.holds(run.lease) and self.tables.lives_under(run.lease, run.run_id)

    def _insert(self, turn: NewTurn, position: int, first_seq: int) -> Turn:
        accepted = Turn(
            ref=turn.ref,
            turn_id=turn.turn_id,
            message_id=turn.message_id,
            content=turn.content,
            on_busy=turn.on_busy,
            payload=as_stored(turn.payload),
            status=TurnStatus.QUEUED,
            attempt=1,
            failures=0,
            position=position,
            first_seq=first_seq,
            accepted_at=self.tables.next_time(),
            verdict=turn.verdict,
        )
        marker = MarkerRow(turn.ref, turn.turn_id, accepted.accepted_at)
        self.tables.markers[turn.ref.organization_id, turn.turn_id] = marker
        return self.tables.put_turn(accepted)

    async def find_turn(self, ref: ConversationRef, message_id: str) -> Turn | None:
        await pass_checkpoint()
        return self.tables.turn_of_message.get((ref, message_id))

    async def find_owed_turn(self, ref: ConversationRef) -> Turn | None:
        await pass_checkpoint()
        owed = (self.tables.turns.get((ref.organization_id, marker.turn_id)) for marker in self.tables.owed(ref))
        return next((turn for turn in owed if turn is not None and turn.ref == ref), None)

    async def mark_closing(self, ref: ConversationRef) -> bool:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is not None:
            row.closing_at = row.closing_at or self.tables.now()
        return row is not None

    async def read_events(self, ref: ConversationRef, from_seq: int, *, limit: int) -> list[Event]:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None:
            return []
        first = max(from_seq - 1 - row.trimmed_to_seq, 0)
        return [event for event, _ in row.events[first : first + limit]]

    async def find_text_start(self, ref: ConversationRef, seq: int) -> int:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        found = () if row is None else (event.seq for event, _ in row.events if event.begins_anew and event.seq <= seq)
        return max(found, default=0)

    async def read_snapshot(self, ref: ConversationRef) -> bytes | None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None:
            return None
        segments = [segment for _, segment in row.segments if segment.generation == row.generation]
        whole = [number for number, segment in enumerate(segments) if segment.base_length == 0]
        newest = segments[whole[-1] if whole else 0 :]
        return join_segments((part.base_length, part.total_length, part.sha256, part.data) for part in newest)

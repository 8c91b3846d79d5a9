"""What the owner of a conversation does, in memory. Each method asks first whether the lease is held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.events import DURABLE_EVENTS, TERMINAL_EVENTS, Data, EventType, closed
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES, OnBusy, RunStatus, TurnStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.memory.tables import (
    ConversationRow,
    LeaseRow,
    MarkerRow,
    Part,
    as_stored,
    pass_checkpoint,
)
from lobu_actors.store.records import (
    Activation,
    Event,
    FinishRun,
    HeldElsewhere,
    Lease,
    NewEvent,
    RequeueRun,
    SnapshotMark,
    StartRun,
    Turn,
    Verdict,
)

_STATUS_OF = {
    EventType.COMPLETE: TurnStatus.COMPLETED,
    EventType.AGENT_ERROR: TurnStatus.FAILED,
    EventType.CANCELLED: TurnStatus.CANCELLED,
}


class ActorPart(Part):
    """Implements `protocol.ActorStore`."""

    async def activate(
        self, ref: ConversationRef, host_id: str, *, overdue: bool = False
    ) -> Activation | HeldElsewhere | None:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None:
            return None
        if not self.tables.host_lives(host_id):
            return HeldElsewhere(host_id)
        held = self.tables.leases.setdefault((ref.organization_id, ref.conversation_id), LeaseRow(None, 0))
        stuck = overdue and self.tables.is_overdue(ref)
        if held.host_id not in (None, host_id) and not stuck and not self.tables.is_gone(held.host_id, host_id):
            return HeldElsewhere(held.host_id)
        held.host_id, held.epoch = host_id, held.epoch + 1
        return Activation(
            lease=Lease(ref, host_id, held.epoch),
            conversation=self.tables.view(row),
            agent=self.tables.agents.get((ref.organization_id, ref.agent_id)),
            owed=tuple(self._owed(marker) for marker in self.tables.owed(ref)),
            snapshot=_newest_mark(row),
            live_run=next((run.record for run in self.tables.live_runs(ref)), None),
        )

    async def load_owed(self, lease: Lease, *, limit: int) -> list[Turn | CorruptMarker] | None:
        await pass_checkpoint()
        if not self.tables.holds(lease):
            return None
        return [self._owed(marker) for marker in self.tables.owed(lease.ref)[:limit]]

    async def mend_markers(self, lease: Lease, turn_ids: Sequence[str]) -> bool:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return False
        organization = lease.ref.organization_id
        refused = Verdict(TurnError.MARKER_CORRUPT, turn_error_text(TurnError.MARKER_CORRUPT))
        for marker in self.tables.owed(lease.ref):
            if marker.turn_id not in turn_ids:
                continue
            turn = self.tables.turns.get((organization, marker.turn_id))
            terminal = self._terminal(marker)
            if terminal is not None:
                del self.tables.markers[organization, marker.turn_id]
                if turn is not None and turn.status not in TERMINAL_TURN_STATUSES:
                    self.tables.put_turn(replace(turn, status=_STATUS_OF[terminal.type]))
            elif turn is None:
                if (lease.ref, marker.turn_id) not in self.tables.turn_of_message:
                    self.tables.put_turn(
                        Turn(
                            lease.ref, marker.turn_id, marker.turn_id, "", OnBusy.ENQUEUE, {}, TurnStatus.QUEUED,
                            attempt=1, failures=0, position=0, first_seq=row.last_seq, accepted_at=marker.accepted_at,
                            verdict=refused,
                        )
                    )  # fmt: skip
            elif turn.ref != lease.ref:
                marker.ref = turn.ref
                self.tables.put_turn(replace(turn, verdict=refused))
        return True

    async def start_run(self, lease: Lease, run: StartRun) -> list[Event] | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return None
        organization = lease.ref.organization_id
        if (organization, run.run_id) in self.tables.runs:
            return _restarts(row, run.run_id) if self.tables.lives_under(lease, run.run_id) else None
        turns = [self.tables.turns.get((organization, turn_id)) for turn_id in run.turn_ids]
        ready = [turn for turn in turns if turn and turn.ref == lease.ref and turn.status is TurnStatus.QUEUED]
        if len(ready) != len(turns) or any(self.tables.live_runs(lease.ref)):
            return None
        self.tables.begin_run(lease, run)
        turn_ids = [*run.turn_ids, *([None] * len(run.restart_events))]
        return [
            self._append(row, lease, NewEvent(EventType.RESTART, data, turn_id, run.run_id, run.attempt, 0))
            for turn_id, data in zip(turn_ids, run.restart_events, strict=False)
        ]

    async def finish_run(self, lease: Lease, run: FinishRun) -> list[Event] | None:
        if any(end.event_type not in TERMINAL_EVENTS for end in run.ends):
            raise ValueError("finish_run writes terminal events only")
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None:
            return None
        fit = self.tables.holds(lease) and (run.run_id is None or self._is_live(lease.ref, run.run_id))
        organization = lease.ref.organization_id
        markers = [self.tables.markers.get((organization, end.turn_id)) for end in run.ends]
        taken = {marker.turn_id: marker for marker in markers if marker and marker.ref == lease.ref}
        if not fit or not taken:
            return _written_before(row, lease, run) or None
        self._check_segment(run)
        self._end_turns(run, taken.values())
        ends = {end.turn_id: end for end in run.ends if end.turn_id in taken}
        events = [
            self._append(
                row,
                lease,
                NewEvent(end.event_type, end.data, end.turn_id, run.run_id, run.attempt, run.text_offset),
            )
            for end in ends.values()
        ]
        self._end_runs(lease, run, {run.run_id or marker.run_id for marker in taken.values()})
        if run.segment is not None and run.run_id is not None and run.status is RunStatus.COMPLETED:
            row.segments.append((run.run_id, run.segment))
        for file_id in run.file_ids:
            file = self.tables.files.get((organization, file_id))
            if file is not None and file.file.ref == lease.ref and file.turn_id is None and file.sha256:
                file.turn_id = next(iter(ends))
        return events

    async def requeue_run(self, lease: Lease, run: RequeueRun) -> list[Turn | CorruptMarker] | None:
        await pass_checkpoint()
        if not self.tables.holds(lease):
            return None
        organization = lease.ref.organization_id
        live = [row for row in self.tables.live_runs(lease.ref) if run.run_id in (None, row.record.run_id)]
        known = self.tables.runs.get((organization, run.run_id)) if run.run_id is not None else None
        if run.run_id is not None and not live:
            again = known is not None and known.record.status is RunStatus.REQUEUED and known.ended_epoch == lease.epoch
            return list(self._turns_still_owed(lease, run.turn_ids)) if again else None
        for row in live:
            row.record = replace(row.record, status=RunStatus.REQUEUED)
            row.ended_epoch, row.error_code, row.exit_status = lease.epoch, run.error_code, run.exit_status
            row.timeline, row.ended_at = tuple(run.timeline), self.tables.now()
        for turn in self._turns_still_owed(lease, run.turn_ids):
            marker = self.tables.markers[organization, turn.turn_id]
            marker.host_id = marker.run_id = marker.deadline = marker.provider_failed_code = None
            if turn.status is TurnStatus.RUNNING:
                self.tables.put_turn(
                    replace(
                        turn,
                        status=TurnStatus.QUEUED,
                        attempt=turn.attempt + 1,
                        failures=turn.failures + int(run.failed),
                        error_code=run.error_code,
                    )
                )
        return list(self._turns_still_owed(lease, run.turn_ids))

    async def join_run(self, lease: Lease, run_id: str, turn_id: str) -> bool | None:
        await pass_checkpoint()
        if not self.tables.holds(lease):
            return None
        organization = lease.ref.organization_id
        run = next((live for live in self.tables.live_runs(lease.ref) if live.record.run_id == run_id), None)
        turn = self.tables.turns.get((organization, turn_id))
        if run is None or turn is None or turn.ref != lease.ref:
            return False
        marker = self.tables.markers.get((organization, turn_id))
        if turn.status is TurnStatus.QUEUED and marker is not None:
            attempt = run.record.attempt
            self.tables.put_turn(replace(turn, status=TurnStatus.RUNNING, attempt=attempt, error_code=None))
            marker.host_id, marker.run_id = lease.host_id, run_id
            run.record = replace(run.record, turn_ids=(*run.record.turn_ids, turn_id))
        return marker is not None and marker.run_id == run_id

    async def leave_run(self, lease: Lease, run_id: str, turn_ids: tuple[str, ...]) -> bool:
        await pass_checkpoint()
        if not self.tables.holds(lease):
            return False
        run = next((live for live in self.tables.live_runs(lease.ref) if live.record.run_id == run_id), None)
        for turn_id in () if run is None else turn_ids:
            assert run is not None
            marker = self.tables.markers.get((lease.ref.organization_id, turn_id))
            if marker is None or marker.run_id != run_id or turn_id == run.record.turn_ids[0]:
                continue
            marker.host_id = marker.run_id = marker.deadline = marker.provider_failed_code = None
            run.record = replace(run.record, turn_ids=tuple(t for t in run.record.turn_ids if t != turn_id))
            turn = self.tables.turns.get((lease.ref.organization_id, turn_id))
            if turn is not None:
                again = replace(turn, status=TurnStatus.QUEUED, attempt=turn.attempt + 1)
                self.tables.put_turn(again)
        return True

    async def append_event(self, lease: Lease, event: NewEvent) -> Event | None:
        if event.type not in DURABLE_EVENTS or event.type in TERMINAL_EVENTS:
            raise ValueError(f"{event.type} is not an event that append_event may write")
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return None
        for known, epoch in row.events:
            if epoch == lease.epoch and _as_new(known) == replace(event, data=as_stored(event.data)):
                return known
        return self._append(row, lease, event)

    async def close_conversation(self, lease: Lease, reason: str) -> Event | None:
        await pass_checkpoint()
        row = self.tables.conversation(lease.ref)
        if row is None or not self.tables.holds(lease):
            return None
        row.closing_at = row.closing_at or self.tables.now()
        if row.closed_at is not None:
            if not row.events:  # trimmed
                return None
            last, epoch = row.events[-1]
            return last if last.type is EventType.CLOSED and epoch == lease.epoch else None
        if self.tables.owed(lease.ref):
            return None
        row.segments.clear()
        row.posted.clear()
        for file in self.tables.files.values():
            if file.file.ref == lease.ref:
                file.turn_id, file.expires_at = None, self.tables.clock()
        row.closed_at = self.tables.now()
        return self._append(row, lease, NewEvent(EventType.CLOSED, closed(reason)))

    async def release(self, lease: Lease) -> None:
        await pass_checkpoint()
        if self.tables.holds(lease):
            self.tables.leases[lease.ref.organization_id, lease.ref.conversation_id].host_id = None

    def _owed(self, marker: MarkerRow) -> Turn | CorruptMarker:
        ref, turn_id = marker.ref, marker.turn_id
        turn = self.tables.turns.get((ref.organization_id, turn_id))
        if self._terminal(marker) is not None:
            return CorruptMarker(ref, turn_id, turn_id, "its terminal event is in the log already", contradicts=True)
        if turn is None:
            return CorruptMarker(ref, turn_id, turn_id, "there is no such turn", contradicts=True)
        if turn.ref != ref:
            return CorruptMarker(ref, turn_id, turn_id, "its turn is another conversation's", contradicts=True)
        if turn.status in TERMINAL_TURN_STATUSES:
            reason = "it has ended without a terminal event"
            return CorruptMarker(ref, turn_id, turn.message_id, reason, contradicts=False)
        return turn

    def _terminal(self, marker: MarkerRow) -> Event | None:
        """The terminal event of its turn, in whichever log of its organization."""
        for (organization, _), row in self.tables.conversations.items():
            if organization == marker.ref.organization_id:
                for event, _ in row.events:
                    if event.turn_id == marker.turn_id and event.type in TERMINAL_EVENTS:
                        return event
        return None

    def _turns_still_owed(self, lease: Lease, turn_ids: Iterable[str]) -> list[Turn]:
        wanted = set(turn_ids)
        found = [self._owed(marker) for marker in self.tables.owed(lease.ref) if marker.turn_id in wanted]
        return [turn for turn in found if isinstance(turn, Turn)]

    def _is_live(self, ref: ConversationRef, run_id: str) -> bool:
        return any(run.record.run_id == run_id for run in self.tables.live_runs(ref))

    def _check_segment(self, run: FinishRun) -> None:
        segment = run.segment
        if (
            run.status is RunStatus.COMPLETED
            and segment is not None
            and segment.total_length != segment.base_length + len(segment.data)
        ):
            raise StoreRejected("a segment's lengths do not fit its data")

    def _end_turns(self, run: FinishRun, taken: Iterable[MarkerRow]) -> None:
        for marker in taken:
            turn = self.tables.turns.get((marker.ref.organization_id, marker.turn_id))
            if turn is not None:
                self.tables.put_turn(replace(turn, status=run.turn_status, error_code=run.error_code))
            del self.tables.markers[marker.ref.organization_id, marker.turn_id]

    def _end_runs(self, lease: Lease, run: FinishRun, run_ids: set[str | None]) -> None:
        """The run that was named, or without a name each predecessor's run of which nothing is owed any more."""
        for row in self.tables.live_runs(lease.ref):
            run_id = row.record.run_id
            left = run.run_id is None and any(m.run_id == run_id for m in self.tables.owed(lease.ref))
            if run_id in run_ids and not left:
                row.record = replace(row.record, status=run.status)
                row.ended_epoch, row.error_code, row.exit_status = lease.epoch, run.error_code, run.exit_status
                row.usage, row.timeline = run.usage, tuple(run.timeline)
                row.ended_at = self.tables.now()

    def _append(self, row: ConversationRow, lease: Lease, new: NewEvent) -> Event:
        event = Event(
            row.ref, row.last_seq + 1, new.turn_id, new.type, as_stored(new.data), new.run_id, new.attempt,
            new.text_offset,
        )  # fmt: skip
        row.events.append((event, lease.epoch))
        row.event_times.append(self.tables.now())
        row.last_activity_at = self.tables.now()
        return event


def _as_new(event: Event) -> NewEvent:
    return NewEvent(event.type, event.data, event.turn_id, event.run_id, event.attempt, event.text_offset)


def _restarts(row: ConversationRow, run_id: str) -> list[Event]:
    return [event for event, _ in row.events if event.run_id == run_id and event.type is EventType.RESTART]


def _written_before(row: ConversationRow, lease: Lease, run: FinishRun) -> list[Event]:
    """Terminal events that an earlier call with the same arguments under the same epoch wrote."""
    wanted: list[tuple[str, EventType, Data]] = [(end.turn_id, end.event_type, as_stored(end.data)) for end in run.ends]
    return [
        event
        for event, epoch in row.events
        if epoch == lease.epoch and event.run_id == run.run_id and (event.turn_id, event.type, event.data) in wanted
    ]


def _newest_mark(row: ConversationRow) -> SnapshotMark | None:
    for run_id, segment in reversed(row.segments):
        if segment.generation == row.generation:
            return SnapshotMark(segment.generation, run_id, segment.total_length, segment.sha256)
    return None

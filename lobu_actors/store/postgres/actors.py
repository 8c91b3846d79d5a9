"""What the owner of a conversation does, on Postgres. Every write is one statement guarded by the lease row.

When a guarded statement gives no row, it either lost or it was done by an earlier call whose answer got lost. The
second look is a statement of its own, so that it sees what committed while the first one waited for a lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.events import DURABLE_EVENTS, TERMINAL_EVENTS, closed
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.driver import Row
from lobu_actors.store.errors import StoreDuplicate
from lobu_actors.store.postgres.rows import (
    AGENT_COLUMNS,
    CONVERSATION_COLUMNS,
    MARK_COLUMNS,
    Params,
    Part,
    lease_params,
    ref_params,
    to_agent,
    to_conversation,
    to_event,
    to_json,
    to_mark,
    to_owed,
    to_run,
    to_turn_or_corrupt,
    without_nulls,
)
from lobu_actors.store.question_records import AdoptedRun, AskedQuestion
from lobu_actors.store.records import (
    Activation,
    Event,
    FinishRun,
    HeldElsewhere,
    Lease,
    NewEvent,
    RequeueRun,
    StartRun,
    Turn,
)

ACQUIRE_ROUNDS = 3
ACTIVATION_OWED_LIMIT = 1000  # of the queue; the rest is loaded when these are done


class ActorPart(Part):
    """Implements `protocol.ActorStore`."""

    async def activate(
        self, ref: ConversationRef, host_id: str, *, overdue: bool = False
    ) -> Activation | HeldElsewhere | None:
        """Three round trips: take the lease, then read under it. Called again it takes the next epoch."""
        params = ref_params(ref) | {"host_id": host_id, "overdue": overdue}
        holder: str | None = None
        for _ in range(ACQUIRE_ROUNDS):
            [(exists, alive, epoch, holder)] = await self.write("acquire_lease_unless_held_by_live_host", params)
            if not exists:
                return None
            if not alive:
                return HeldElsewhere(host_id)
            if epoch is not None:
                return await self._load(Lease(ref, host_id, epoch))
            # The holder that is shown may be older than the one that refused us: somebody was faster. Look again.
        return HeldElsewhere(holder or "")

    async def _load(self, lease: Lease) -> Activation | HeldElsewhere | None:
        rows = await self.read("load_activation", ref_params(lease.ref))
        owed = await self.load_owed(lease, limit=ACTIVATION_OWED_LIMIT)
        if not rows:
            return None
        if owed is None:
            return HeldElsewhere("")
        row = rows[0]
        rest = row[CONVERSATION_COLUMNS:]
        agent, rest = rest[:AGENT_COLUMNS], rest[AGENT_COLUMNS:]
        mark, run = rest[:MARK_COLUMNS], rest[MARK_COLUMNS:]
        return Activation(
            lease=lease,
            conversation=to_conversation(lease.ref.organization_id, row[:CONVERSATION_COLUMNS]),
            agent=None if agent[0] is None else to_agent(agent),
            owed=tuple(owed),
            snapshot=None if mark[0] is None else to_mark(mark),
            live_run=None if run[0] is None else to_run(run),
        )

    async def load_owed(self, lease: Lease, *, limit: int) -> list[Turn | CorruptMarker] | None:
        rows = await self.read("load_owed_if_lease_held", lease_params(lease) | {"limit": limit})
        return [to_owed(lease.ref, row) for row in rows if row[0] is not None] if rows else None

    async def mend_markers(self, lease: Lease, turn_ids: Sequence[str]) -> bool:
        params = lease_params(lease) | {
            "turn_ids": list(turn_ids),
            "code": TurnError.MARKER_CORRUPT.value,
            "error": turn_error_text(TurnError.MARKER_CORRUPT),
        }
        return bool(await self.write("mend_markers_if_lease_held", params))

    async def start_run(self, lease: Lease, run: StartRun) -> list[Event] | None:
        params = lease_params(lease) | {
            "run_id": run.run_id,
            "turn_ids": list(run.turn_ids),
            "attempt": run.attempt,
            "worker_pid": run.worker_pid,
            "worker_started_at": run.worker_started_at,
            "restart_events": run.restart_events,
        }
        rows = await self.write_together("start_runs_if_lease_held", lease.ref, params)
        if not rows:
            rows = await self.read("find_started_run", params)
        return _events(lease, rows) if rows else None

    async def finish_run(self, lease: Lease, run: FinishRun) -> list[Event] | None:
        params = _finish_params(lease, run)
        files = "_with_files" if run.file_ids else ""
        rows = await self.write_together(f"finish_runs{files}_if_lease_held", lease.ref, params)
        if not rows:
            asked = {"ends": to_json(params["ends"]), "turn_ids": params["run"]["turn_ids"]}
            rows = await self.read("find_finished_run", params | asked)
        return sorted(_events(lease, rows), key=lambda event: event.seq) if rows else None

    async def requeue_run(self, lease: Lease, run: RequeueRun) -> list[Turn | CorruptMarker] | None:
        params = lease_params(lease) | {
            "run_id": run.run_id,
            "turn_ids": list(run.turn_ids),
            "failures": int(run.failed),
            "error_code": run.error_code,
            "exit_status": run.exit_status,
            "timeline": to_json(run.timeline) if run.timeline else None,
        }
        turns = _turns(lease, await self.write("requeue_run_if_lease_held", params))
        # Nothing moved: lost, or moved by an earlier call.
        return turns or _turns(lease, await self.read("find_requeued_run", params))

    async def adopt_run(self, lease: Lease, run_id: str) -> AdoptedRun | None:
        rows = await self.write("adopt_run_if_lease_held", lease_params(lease) | {"run_id": run_id})
        if not rows:
            return None
        [(age_seconds, start_seq, questions, provider_failed_code)] = rows
        asked = (AskedQuestion(*question) for question in questions if question[1] is not None)
        return AdoptedRun(age_seconds, start_seq, tuple(asked), provider_failed_code)

    async def request_cancel(self, lease: Lease, run_id: str) -> bool:
        return bool(await self.write("request_cancel_if_lease_held", lease_params(lease) | {"run_id": run_id}))

    async def join_run(self, lease: Lease, run_id: str, turn_id: str) -> bool | None:
        params = lease_params(lease) | {"run_id": run_id, "turn_id": turn_id}
        [(held, joined)] = await self.write("join_run_if_lease_held", params)
        return bool(joined) if held else None

    async def leave_run(self, lease: Lease, run_id: str, turn_ids: tuple[str, ...]) -> bool:
        params = lease_params(lease) | {"run_id": run_id, "turn_ids": list(turn_ids)}
        [(held,)] = await self.write("leave_run_if_lease_held", params)
        return bool(held)

    async def append_event(self, lease: Lease, event: NewEvent) -> Event | None:
        """The same event again under the same lease, equal in every field, gives the first one: nothing is appended.

        Raises ValueError for a type that is terminal or not durable.
        """
        if event.type not in DURABLE_EVENTS or event.type in TERMINAL_EVENTS:
            raise ValueError(f"{event.type} is not an event that append_event may write")
        params = lease_params(lease) | {
            "type": event.type.value,
            "data": to_json(event.data),
            "turn_id": event.turn_id,
            "run_id": event.run_id,
            "attempt": event.attempt,
            "text_offset": event.text_offset,
        }
        params["append_key"] = hashlib.sha256(to_json(event).encode()).hexdigest()
        try:
            rows = await self.write("append_event_if_lease_held", params)
        except StoreDuplicate:
            rows = await self.read("find_appended_event", params)
        return to_event(lease.ref, rows[0]) if rows else None

    async def close_conversation(self, lease: Lease, reason: str) -> Event | None:
        """Marks it closing first, so that no accept can slip between the look at the queue and the close."""
        params = lease_params(lease) | {"data": to_json(closed(reason))}
        if not await self.write("mark_closing_if_lease_held", params):
            return None
        rows = await self.write("close_conversation_if_lease_held", params)
        if not rows:
            rows = await self.read("find_closed_event", params)
        return to_event(lease.ref, rows[0]) if rows else None

    async def release(self, lease: Lease) -> None:
        await self.write("release_lease_if_held", lease_params(lease))


def _finish_params(lease: Lease, run: FinishRun) -> Params:
    # A snapshot exists only for a completed run, whoever asks for another.
    segment = run.segment if run.status is RunStatus.COMPLETED and run.run_id is not None else None
    ends = [{"turn_id": end.turn_id, "type": end.event_type.value, "data": end.data} for end in run.ends]
    if any(end.event_type not in TERMINAL_EVENTS for end in run.ends):
        raise ValueError("finish_run writes terminal events only")
    of_run = {
        "turn_ids": [end.turn_id for end in run.ends],
        "status": run.status.value,
        "turn_status": run.turn_status.value,
        "error_code": run.error_code,
        "exit_status": run.exit_status,
        "usage": run.usage,
        "timeline": run.timeline or None,
        "attempt": run.attempt,
        "text_offset": run.text_offset,
        "file_ids": run.file_ids or None,
    }
    params = lease_params(lease) | {"run_id": run.run_id, "run": without_nulls(of_run), "ends": ends}
    if segment is not None:
        params |= {
            "generation": segment.generation,
            "base_length": segment.base_length,
            "total_length": segment.total_length,
            "sha256": segment.sha256,
            "segment": segment.data,
        }
    return params


def _events(lease: Lease, rows: list[Row]) -> list[Event]:
    """A row of NULLs says that the statement took effect and wrote no event."""
    return [to_event(lease.ref, row) for row in rows if row[0] is not None]


def _turns(lease: Lease, rows: list[Row]) -> list[Turn | CorruptMarker] | None:
    """No row: lost. A row of NULLs: held, and nothing there."""
    return [to_turn_or_corrupt(lease.ref, row) for row in rows if row[0] is not None] if rows else None

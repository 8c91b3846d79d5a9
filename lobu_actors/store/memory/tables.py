"""The tables and their keys, and what several parts need to ask of them. No promise is kept here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import msgspec
import trio
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, DeliveryStatus, HostState, RunStatus, TurnStatus
from lobu_actors.store.link_records import NO_LINKS, Links
from lobu_actors.store.records import (
    Agent,
    ApiKey,
    Conversation,
    Event,
    Lease,
    NewFile,
    RunRecord,
    Segment,
    StartRun,
    Turn,
)
from lobu_actors.store.singleton_records import NewDelivery, SingletonName
from lobu_actors.store.timeline_protocol import Mark


@attrs.define
class ConversationRow:
    ref: ConversationRef
    user_id: str
    created_at: datetime
    last_activity_at: datetime
    model: str | None
    provider: str | None
    generation: int = 1
    closing_at: datetime | None = None
    closed_at: datetime | None = None
    # (event, epoch of its writer); the seq of events[i] is trimmed_to_seq + i + 1
    events: list[tuple[Event, int]] = attrs.field(factory=list)
    event_times: list[datetime] = attrs.field(factory=list)
    trimmed_to_seq: int = 0
    # (run_id, segment), in order of their commits
    segments: list[tuple[str, Segment]] = attrs.field(factory=list)
    posted: dict[str, bytes] = attrs.field(factory=dict)  # by run: snapshots that workers posted
    carried_summary: str | None = None

    @property
    def last_seq(self) -> int:
        return self.trimmed_to_seq + len(self.events)


@attrs.define
class MarkerRow:
    ref: ConversationRef
    turn_id: str
    accepted_at: datetime
    host_id: str | None = None
    run_id: str | None = None
    deadline: float | None = None
    provider_failed_code: str | None = None


@attrs.define
class LeaseRow:
    host_id: str | None
    epoch: int


@attrs.define
class RunRow:
    ref: ConversationRef
    record: RunRecord
    started_at: float
    ended_epoch: int | None = None
    error_code: str | None = None
    exit_status: str | None = None
    usage: dict[str, Any] | None = None
    ended_at: datetime | None = None
    timeline: tuple[Mark, ...] = ()


@attrs.define
class QuestionRow:
    ref: ConversationRef
    run_id: str
    turn_id: str
    worker_question_id: str
    event: Event
    epoch: int
    answer: str | None = None
    answered_by: str | None = None
    answer_id: str | None = None


@attrs.define
class FileRow:
    file: NewFile
    expires_at: float
    created_at: datetime
    turn_id: str | None = None
    size: int = 0
    sha256: str = ""
    chunks: dict[int, bytes] = attrs.field(factory=dict)


@attrs.define
class WatcherRow:
    schedule: str
    considered_until: datetime
    pending_for: datetime | None = None


@attrs.define
class DeliveryRow:
    delivery: NewDelivery
    created_at: datetime
    status: DeliveryStatus = DeliveryStatus.OWED
    parts_sent: int = 0
    error: str | None = None


@attrs.define
class HostRow:
    host_id: str
    name: str
    link_url: str | None
    version: str
    state: HostState
    expires_at: float
    started_at: float
    judges_until: float
    judges_from: float = -math.inf
    alone: Alone | None = None
    runs: int = 0
    room: int | None = None
    links: Links = NO_LINKS


@attrs.define
class RolloutRow:
    rollout_id: str
    first_host_id: str
    host_id: str
    name: str
    expires_at: float
    ended: bool = False


class Tables:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.organizations: set[str] = set()
        self.api_keys: dict[str, ApiKey] = {}
        self.agents: dict[tuple[str, str], Agent] = {}
        self.conversations: dict[tuple[str, str], ConversationRow] = {}
        self.leases: dict[tuple[str, str], LeaseRow] = {}
        self.turns: dict[tuple[str, str], Turn] = {}
        self.turn_of_message: dict[tuple[ConversationRef, str], Turn] = {}
        self.markers: dict[tuple[str, str], MarkerRow] = {}
        self.runs: dict[tuple[str, str], RunRow] = {}
        self.hosts: dict[str, HostRow] = {}
        self.questions: dict[tuple[str, str], QuestionRow] = {}
        self.files: dict[tuple[str, str], FileRow] = {}
        self.listeners: dict[str, list[Any]] = {}  # by host
        self.used_tickets: dict[tuple[str, str], tuple[str, float]] = {}  # use_id, expires_at
        self.singletons: dict[SingletonName, LeaseRow] = {}
        self.watchers: dict[tuple[str, str], WatcherRow] = {}
        self.deliveries: dict[tuple[str, str, str], DeliveryRow] = {}
        self.rollout: RolloutRow | None = None
        self._last_time = datetime.fromtimestamp(0, UTC)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def next_time(self) -> datetime:
        """Now, but never the same twice: the order of acceptance is the order of these."""
        self._last_time = max(self.now(), self._last_time + timedelta(microseconds=1))
        return self._last_time

    def conversation(self, ref: ConversationRef) -> ConversationRow | None:
        row = self.conversations.get((ref.organization_id, ref.conversation_id))
        return row if row is not None and row.ref == ref else None

    def owed(self, ref: ConversationRef) -> list[MarkerRow]:
        found = [marker for marker in self.markers.values() if marker.ref == ref]
        return sorted(found, key=lambda marker: (marker.accepted_at, marker.turn_id))

    def is_overdue(self, ref: ConversationRef) -> bool:
        now = self.clock()
        return any(
            marker.run_id is not None and marker.deadline is not None and marker.deadline <= now
            for marker in self.owed(ref)
        )

    def put_turn(self, turn: Turn) -> Turn:
        self.turns[turn.ref.organization_id, turn.turn_id] = turn
        self.turn_of_message[turn.ref, turn.message_id] = turn
        return turn

    def begin_run(self, lease: Lease, run: StartRun) -> None:
        """Of turns that are queued, under a lease that is held."""
        organization = lease.ref.organization_id
        for turn_id in run.turn_ids:
            turn, marker = self.turns[organization, turn_id], self.markers[organization, turn_id]
            self.put_turn(replace(turn, status=TurnStatus.RUNNING, attempt=run.attempt, error_code=None))
            marker.host_id, marker.run_id = lease.host_id, run.run_id
        record = RunRecord(
            run.run_id, run.turn_ids, RunStatus.LIVE, lease.host_id, lease.epoch, run.attempt, run.worker_pid,
            run.worker_started_at,
        )  # fmt: skip
        self.runs[organization, run.run_id] = RunRow(lease.ref, record, self.clock())

    def lives_under(self, lease: Lease, run_id: str) -> bool:
        """Whether this run was begun under this very lease, and lives."""
        row = self.runs.get((lease.ref.organization_id, run_id))
        if row is None or row.ref != lease.ref:
            return False
        found = (row.record.status, row.record.host_id, row.record.epoch)
        return found == (RunStatus.LIVE, lease.host_id, lease.epoch)

    def live_runs(self, ref: ConversationRef) -> Iterator[RunRow]:
        return (run for run in self.runs.values() if run.ref == ref and run.record.status is RunStatus.LIVE)

    def host_lives(self, host_id: str | None) -> bool:
        host = self.hosts.get(host_id) if host_id is not None else None
        return host is not None and host.state is not HostState.DEAD and host.expires_at > self.clock()

    def is_gone(self, host_id: str, judge: str) -> bool:
        """Whether `judge`, a live host, may take over from it."""
        host, me, now = self.hosts.get(host_id), self.hosts[judge], self.clock()
        if host is None or host.state is HostState.DEAD:
            return True
        return host.expires_at <= now and me.judges_from <= now < me.judges_until

    def holds(self, lease: Lease) -> bool:
        row = self.leases.get((lease.ref.organization_id, lease.ref.conversation_id))
        return row is not None and row.host_id == lease.host_id and row.epoch == lease.epoch

    def view(self, row: ConversationRow) -> Conversation:
        owed = self.owed(row.ref)
        running = sum(marker.run_id is not None for marker in owed)
        return Conversation(
            ref=row.ref,
            user_id=row.user_id,
            created_at=row.created_at,
            last_activity_at=max([row.last_activity_at, *(marker.accepted_at for marker in owed)]),
            generation=row.generation,
            last_seq=row.last_seq,
            closing=row.closing_at is not None,
            closed=row.closed_at is not None,
            model=row.model,
            provider=row.provider,
            queued=len(owed) - running,
            running=running,
        )


class Part:
    """What the parts of the store have in common."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables


async def pass_checkpoint() -> None:
    """Where a real store would wait: other tasks run, and a cancelled caller is told before anything is written."""
    await trio.lowlevel.checkpoint()


def as_stored(value: Any) -> Any:
    """What comes back after JSON: a copy, with lists for tuples."""
    return msgspec.json.decode(msgspec.json.encode(value))

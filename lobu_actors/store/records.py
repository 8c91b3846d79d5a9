"""What the store takes and gives: frozen records, no behaviour. Field names follow the columns of the data model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState, OnBusy, Role, RunStatus, TurnStatus
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.link_records import NO_LINKS, Links
from lobu_actors.store.timeline_protocol import Mark

Json = dict[str, Any]


class ApiKey(msgspec.Struct, frozen=True):
    key_hash: str  # sha256 of the key, hex
    organization_id: str
    user_id: str
    role: Role
    label: str
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


class Agent(msgspec.Struct, frozen=True):
    organization_id: str
    agent_id: str
    worker: str
    is_default: bool = False
    owner_user_id: str | None = None
    model: str | None = None
    settings: Json = msgspec.field(default_factory=dict)
    policy: Json = msgspec.field(default_factory=dict)  # deadlines, failure rules and guardrails as in lobu.toml
    disabled: bool = False


class Conversation(msgspec.Struct, frozen=True):
    ref: ConversationRef
    user_id: str
    created_at: datetime
    last_activity_at: datetime
    generation: int
    last_seq: int  # the newest committed event's seq, 0 when there is none
    closing: bool  # DELETE was asked for; nothing is accepted any more
    closed: bool
    model: str | None = None
    provider: str | None = None
    queued: int = 0
    running: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """Why a message is kept from every worker: the code, the sentence and the context that its turn ends with."""

    code: str
    error: str
    context: Json | None = None


class NewTurn(msgspec.Struct, frozen=True):
    """A message to accept. `payload` holds the client's further fields, handed on to the worker as they are."""

    ref: ConversationRef
    turn_id: str
    message_id: str
    content: str
    on_busy: OnBusy = OnBusy.ENQUEUE
    payload: Json = msgspec.field(default_factory=dict)
    file_ids: tuple[str, ...] = ()  # sealed and unbound; they become the turn's with it, all or none
    verdict: Verdict | None = None


class Turn(msgspec.Struct, frozen=True):
    """An accepted message."""

    ref: ConversationRef
    turn_id: str
    message_id: str
    content: str
    on_busy: OnBusy
    payload: Json
    status: TurnStatus
    attempt: int  # of the run that is live or comes next, from 1
    failures: int  # attempts that were lost or failed, counted against max_attempts; a hand-over is not one
    position: int  # turns owed before it in its conversation when it was accepted
    first_seq: int  # newest event's seq when it was accepted: replay from here shows all of this turn
    accepted_at: datetime
    error_code: str | None = None
    verdict: Verdict | None = None  # a guardrail's; only of a turn that never ran


class Accepted(msgspec.Struct, frozen=True):
    turn: Turn  # as it was accepted; a known one as it is now
    created: bool  # False: this messageId was accepted before, nothing was written
    begun: bool = False  # the run that it was to begin with lives


class Refused(msgspec.Struct, frozen=True):
    """Why `accept_turn` wrote nothing: `missing` (no such conversation), `closed`, `full` (too many turns owed), or
    `busy` (something is owed, and the message asked to be rejected then)."""

    reason: str


class Lease(msgspec.Struct, frozen=True):
    """The right to write for one actor. Every guarded statement carries it."""

    ref: ConversationRef
    host_id: str
    epoch: int


class HeldElsewhere(msgspec.Struct, frozen=True):
    """The lease belongs to another live host."""

    host_id: str


class SnapshotMark(msgspec.Struct, frozen=True):
    """What the newest snapshot is, without its bytes."""

    generation: int
    run_id: str
    length: int
    sha256: str


class NewSession(msgspec.Struct, frozen=True):
    """The generation after `generation`, the one that the caller knows."""

    generation: int
    summary: str | None = None  # what its runs are told of the session before it
    provider: str | None = None  # the conversation's from now on; None: as it was
    model: str | None = None


class Activation(msgspec.Struct, frozen=True):
    """All that a fresh actor needs, from the statement that gave it its lease."""

    lease: Lease
    conversation: Conversation
    agent: Agent | None
    owed: tuple[Turn | CorruptMarker, ...]  # oldest first, running ones included
    snapshot: SnapshotMark | None
    live_run: RunRecord | None = None  # what the last owner left running; to be finished or requeued before a new run


class StartRun(msgspec.Struct, frozen=True):
    """Begin one attempt at `turn_ids`. `restart_reason` is set when an earlier attempt may have shown output."""

    run_id: str
    turn_ids: tuple[str, ...]
    attempt: int
    worker_pid: int | None
    worker_started_at: float | None  # seconds since boot, with the pid the process's identity
    restart_events: tuple[Data, ...] = ()  # one durable `restart` a message, empty on a first attempt


class Segment(msgspec.Struct, frozen=True):
    """New bytes of a session file: the suffix behind `base_length`, or the whole file at base_length 0."""

    generation: int
    base_length: int
    total_length: int
    sha256: str  # of the whole file
    data: bytes


class TurnEnd(msgspec.Struct, frozen=True):
    """One message's terminal event."""

    turn_id: str
    event_type: EventType
    data: Data


class FinishRun(msgspec.Struct, frozen=True):
    """End turns, each with its terminal event, in one guarded statement.

    `run_id` is None for turns that never ran (cancelled in the queue, refused, worker could not be started).
    """

    run_id: str | None
    status: RunStatus
    turn_status: TurnStatus
    ends: tuple[TurnEnd, ...]
    error_code: str | None = None
    exit_status: str | None = None
    usage: Json | None = None
    segment: Segment | None = None
    attempt: int | None = None
    text_offset: int | None = None
    file_ids: tuple[str, ...] = ()  # sealed and unbound; they become the first turn's that is ended here
    timeline: Sequence[Mark] = ()  # what its owner noticed of the run


class RequeueRun(msgspec.Struct, frozen=True):
    """Put a run's turns back to `queued` with attempt + 1; `failed` says whether the attempt counts as a failure.

    `run_id` None: whatever run a predecessor left them in.
    """

    run_id: str | None
    turn_ids: tuple[str, ...]
    failed: bool
    error_code: str | None = None
    exit_status: str | None = None
    timeline: Sequence[Mark] = ()


class Event(msgspec.Struct, frozen=True):
    """A durable event as it stands in the log."""

    ref: ConversationRef
    seq: int
    turn_id: str | None
    type: EventType
    data: Data
    run_id: str | None = None
    attempt: int | None = None  # of the run that was live when it was written
    text_offset: int | None = None  # code points of that attempt's text at that moment

    @property
    def begins_anew(self) -> bool:
        """Nothing that ran before it shows text behind it."""
        return self.attempt is None or self.type is EventType.RESTART


class NewEvent(msgspec.Struct, frozen=True):
    """A durable, non-terminal event of the actor's."""

    type: EventType
    data: Data
    turn_id: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    text_offset: int | None = None


class Host(msgspec.Struct, frozen=True):
    host_id: str
    name: str
    link_url: str | None
    version: str
    state: HostState
    expires_in_seconds: float  # by the database's clock; negative when it is over
    leases: int = 0
    epochs: int = 0  # of these leases, added up: how often they were taken, by anybody
    queued: int = 0  # turns that wait in the conversations that it holds
    running: int = 0
    age_seconds: float = 0.0  # since its registration
    links: Links = NO_LINKS  # at its last renewal


class Owed(msgspec.Struct, frozen=True):
    """A conversation that a sweep found: it owes a turn, or, when it is `closing`, its close (and maybe turns too)."""

    ref: ConversationRef
    closing: bool


class MarkerDeadline(msgspec.Struct, frozen=True):
    """Until when the owner of a running turn will have done something about it, `seconds` from now; and what its
    provider said, if it said no, for whoever goes on with the run."""

    organization_id: str
    turn_id: str
    run_id: str
    seconds: float
    provider_failed_code: str | None = None


class Totals(msgspec.Struct, frozen=True):
    """Counts for `lobu status`."""

    conversations: int
    queued: int
    running: int
    oldest_owed_seconds: float | None


class Trimmable(msgspec.Struct, frozen=True):
    """A conversation as retention sees it."""

    ref: ConversationRef
    old: bool  # it has something older than what is kept
    segments: int  # of its snapshots; counted to one more than was asked for


class Trimmed(msgspec.Struct, frozen=True):
    """How many rows one step of retention deleted (files: left to expire). `more`: it stopped at its limit."""

    turns: int
    events: int
    segments: int
    runs: int
    questions: int
    files: int
    more: bool


class Compacted(msgspec.Struct, frozen=True):
    replaced: int  # segments that went into the newest one
    corrupt: bool  # the bytes do not match their hash, so nothing was changed


class RunRecord(msgspec.Struct, frozen=True):
    run_id: str
    turn_ids: tuple[str, ...]
    status: RunStatus
    host_id: str
    epoch: int
    attempt: int
    worker_pid: int | None = None
    worker_started_at: float | None = None  # seconds since boot
    cancel_requested: bool = False


FILE_CHUNK_BYTES = 256 * 1024
# How long a file may wait for its turn: far longer than any retry of the statement that binds it.
UNBOUND_FILE_SECONDS = 6 * 3600.0
FILES_KEY = "files"  # in a turn's payload: it may have brought some; what it did bring, the store knows


class Direction(StrEnum):
    IN = "in"  # came with a message
    OUT = "out"  # left by a worker


class NewFile(msgspec.Struct, frozen=True):
    """A file whose bytes are still to come. Deleted after `lives_seconds` unless it is bound to a turn before."""

    ref: ConversationRef
    file_id: str
    direction: Direction
    name: str
    media_type: str
    lives_seconds: float


class FileRecord(msgspec.Struct, frozen=True):
    """A file that a turn has. Its bytes are in pieces of FILE_CHUNK_BYTES, the last one shorter."""

    ref: ConversationRef
    file_id: str
    turn_id: str
    direction: Direction
    name: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime
    message_id: str | None  # of its turn

    @property
    def chunks(self) -> int:
        return -(-self.size // FILE_CHUNK_BYTES)

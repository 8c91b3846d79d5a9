"""What a conversation's actor can be told, and what it can want done: the two sides of `decide`.

Structs, of which there are many: a class of attrs takes forty times as long to define, at each start.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import Frame
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.adoption_messages import AdoptRun, RunAdopted
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest, LeaseReleased, ReleaseLease
from lobu_actors.conversation.marker_messages import MarkersMended, MendMarkers
from lobu_actors.conversation.question_messages import (
    AnswersLoaded,
    LoadAnswers,
    QuestionAnswered,
    RecordAnswer,
    RecordQuestion,
)  # fmt: skip
from lobu_actors.conversation.session_messages import (
    PurgeRequest,
    PurgeSnapshots,
    ResetFailed,
    ResetRefused,
    ResetSession,
    SessionReset,
    SnapshotsPurged,
)
from lobu_actors.conversation.standby_messages import LookAtStandby, OpenRun, StandbySettled, StandbyTaken
from lobu_actors.conversation.state import WorkerState
from lobu_actors.conversation.worker_port import WorkerFrames, WorkerGone, WorkerReady
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import RunRecord, Turn

# --- messages from outside


class TurnAccepted(msgspec.Struct, frozen=True):
    """An edge committed this turn. May come twice, or late, or never: then a sweep brings `Sweep`."""

    turn: Turn


class Sweep(msgspec.Struct, frozen=True):
    """Something is owed here; look. `overdue`: its owner let a deadline pass, so take it from whoever has it."""

    overdue: bool = False


class CancelRequest(msgspec.Struct, frozen=True):
    message_id: str | None  # None: everything owed


class CloseRequest(msgspec.Struct, frozen=True):
    """The conversation was marked closing: end what is owed as cancelled, then close it."""


class Tick(msgspec.Struct, frozen=True):
    """A deadline may have passed."""


# --- results of effects, told to `decide` before anything else is


class Recovered(msgspec.Struct, frozen=True):
    """The lease was taken: this is what is owed, oldest first; `running` ones were a lost predecessor's."""

    owed: tuple[Turn | CorruptMarker, ...]
    live_run: RunRecord | None = None
    worker: WorkerState | None = None  # the one that has the live run and is still there


class OwedLoaded(msgspec.Struct, frozen=True):
    owed: tuple[Turn | CorruptMarker, ...]


class WorkerStarting(msgspec.Struct, frozen=True):
    """A worker was asked for under this id."""

    worker_id: str


class RunBegun(msgspec.Struct, frozen=True):
    run_id: str


class RunJoined(msgspec.Struct, frozen=True):
    """The turn is part of the live run."""

    turn: Turn


class JoinRefused(msgspec.Struct, frozen=True):
    """It could not join: it is not queued any more, or the run is not live."""

    turn: Turn


class BeginRefused(msgspec.Struct, frozen=True):
    """Some of its turns were not `queued` any more (a hint that came late). `owed`: what is."""

    run_id: str
    owed: tuple[Turn | CorruptMarker, ...]


class SessionUnusable(msgspec.Struct, frozen=True):
    """The session file could not be laid out, so the run did not begin."""

    run_id: str
    code: TurnError
    detail: str


class RunRefused(msgspec.Struct, frozen=True):
    """What a run needs to be guarded is missing: the worker was not given it."""

    run_id: str
    detail: str


class TurnNotSent(msgspec.Struct, frozen=True):
    """The worker was gone before it was given the run; nobody has seen the messages."""

    run_id: str


class TurnsFinished(msgspec.Struct, frozen=True):
    turn_ids: tuple[str, ...]
    returned: tuple[Turn, ...] = ()


class TurnsRequeued(msgspec.Struct, frozen=True):
    turns: tuple[Turn | CorruptMarker, ...]


class LeaseLost(msgspec.Struct, frozen=True):
    pass


class ConversationClosed(msgspec.Struct, frozen=True):
    pass


Message = (
    TurnAccepted
    | Sweep
    | CancelRequest
    | QuestionAnswered
    | CloseRequest
    | DrainRequest
    | BeginAnew
    | PurgeRequest
    | LookAtStandby
    | StandbyTaken
    | StandbySettled
    | Tick
    | Recovered
    | OwedLoaded
    | MarkersMended
    | WorkerStarting
    | AnswersLoaded
    | RunBegun
    | RunAdopted
    | RunJoined
    | JoinRefused
    | BeginRefused
    | SessionUnusable
    | RunRefused
    | TurnNotSent
    | SessionReset
    | ResetRefused
    | ResetFailed
    | SnapshotsPurged
    | TurnsFinished
    | TurnsRequeued
    | LeaseLost
    | LeaseReleased
    | ConversationClosed
    | WorkerReady
    | WorkerFrames
    | WorkerGone
)

# --- effects


class StartWorker(msgspec.Struct, frozen=True):
    """Answers WorkerStarting; WorkerReady or WorkerGone follow from outside."""


class KillWorker(msgspec.Struct, frozen=True):
    pass


class ShutdownWorker(msgspec.Struct, frozen=True):
    grace_seconds: float


class BeginRun(msgspec.Struct, frozen=True):
    """Lay out the session file and commit the run. Answers RunBegun, BeginRefused, SessionUnusable or LeaseLost."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int
    pid: int | None
    started_at: float | None


class RequestCancel(msgspec.Struct, frozen=True):
    """Commit that the live run is to end as cancelled, whoever owns it by then. Answers LeaseLost if it is not ours."""

    run_id: str


class JoinRun(msgspec.Struct, frozen=True):
    """Commit that a steering message belongs to the live run. Answers RunJoined, JoinRefused or LeaseLost."""

    run_id: str
    turn: Turn


class SendTurn(msgspec.Struct, frozen=True):
    """Open the live text, give the run to the worker. Answers RunRefused if unguarded, TurnNotSent if it is gone."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int


class SendFrame(msgspec.Struct, frozen=True):
    frame: Frame


class ShowText(msgspec.Struct, frozen=True):
    text: str


class ShowStatus(msgspec.Struct, frozen=True):
    status: str
    phase: str | None
    message_id: str
    tool: str | None = None  # that runs now
    extra: dict[str, Any] = {}  # what its worker sent beside the protocol's fields, here and below


class ShowEphemeral(msgspec.Struct, frozen=True):
    text: str
    message_id: str | None
    extra: dict[str, Any] = {}


class RecordCancelStage(msgspec.Struct, frozen=True):
    turns: tuple[Turn, ...]
    stage: str


class FinishTurns(msgspec.Struct, frozen=True):
    """The terminal statement. Answers TurnsFinished or LeaseLost. `run_id` None: the turns never ran here."""

    run_id: str | None
    turns: tuple[Turn | CorruptMarker, ...]
    status: TurnStatus
    run_status: RunStatus
    code: str | None = None
    error: str | None = None
    context: dict[str, Any] | None = None
    text: str | None = None  # the worker's own whole reply, when it gave one
    usage: dict[str, Any] | None = None
    exit_status: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = {}
    returned: tuple[Turn, ...] = ()  # of the run, and read by nobody: as they are queued again


class RequeueTurns(msgspec.Struct, frozen=True):
    """Answers TurnsRequeued or LeaseLost. `run_id` None: a lost predecessor's run."""

    run_id: str | None
    turns: tuple[Turn, ...]
    failed: bool
    code: str
    exit_status: str | None = None


class LoadOwed(msgspec.Struct, frozen=True):
    """Answers OwedLoaded or LeaseLost."""


class CloseConversation(msgspec.Struct, frozen=True):
    """Answers ConversationClosed or LeaseLost."""


class RemoveWorkspace(msgspec.Struct, frozen=True):
    """Nothing of a closed conversation stays on disk."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to whoever asked."""

    value: object


class Dropped(msgspec.Struct, frozen=True):
    """Something that came too late or from the wrong run was ignored; counted by `reason`."""

    reason: str
    number: int = 1


class Note(msgspec.Struct, frozen=True):
    """A log line; `alarm`: one that an operator should see. `fields` never hold message contents. It is written behind
    what was decided with it, see `Notes`."""

    event: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict)
    alarm: bool = False


Record = RecordAnswer | RecordCancelStage
Effect = (
    StartWorker
    | KillWorker
    | ShutdownWorker
    | BeginRun
    | OpenRun
    | AdoptRun
    | RequestCancel
    | JoinRun
    | SendTurn
    | SendFrame
    | ShowText
    | ShowStatus
    | ShowEphemeral
    | RecordQuestion
    | Record
    | FinishTurns
    | RequeueTurns
    | LoadOwed
    | MendMarkers
    | LoadAnswers
    | ResetSession
    | PurgeSnapshots
    | CloseConversation
    | ReleaseLease
    | RemoveWorkspace
    | Reply
    | Dropped
    | Note
)

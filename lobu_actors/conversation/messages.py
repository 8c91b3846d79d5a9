"""What a conversation's actor can be told, and what it can want done: the two sides of `decide`."""

from __future__ import annotations

from typing import Any

import attrs

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


@attrs.frozen
class TurnAccepted:
    """An edge committed this turn. May come twice, or late, or never: then a sweep brings `Sweep`."""

    turn: Turn


@attrs.frozen
class Sweep:
    """Something is owed here; look. `overdue`: its owner let a deadline pass, so take it from whoever has it."""

    overdue: bool = False


@attrs.frozen
class CancelRequest:
    message_id: str | None  # None: everything owed


@attrs.frozen
class CloseRequest:
    """The conversation was marked closing: end what is owed as cancelled, then close it."""


@attrs.frozen
class Tick:
    """A deadline may have passed."""


# --- results of effects, told to `decide` before anything else is


@attrs.frozen
class Recovered:
    """The lease was taken: this is what is owed, oldest first; `running` ones were a lost predecessor's."""

    owed: tuple[Turn | CorruptMarker, ...]
    live_run: RunRecord | None = None
    worker: WorkerState | None = None  # the one that has the live run and is still there


@attrs.frozen
class OwedLoaded:
    owed: tuple[Turn | CorruptMarker, ...]


@attrs.frozen
class WorkerStarting:
    """A worker was asked for under this id."""

    worker_id: str


@attrs.frozen
class RunBegun:
    run_id: str


@attrs.frozen
class RunJoined:
    """The turn is part of the live run."""

    turn: Turn


@attrs.frozen
class JoinRefused:
    """It could not join: it is not queued any more, or the run is not live."""

    turn: Turn


@attrs.frozen
class BeginRefused:
    """The turns were not `queued` any more (a hint that came late): drop them."""

    run_id: str


@attrs.frozen
class SessionUnusable:
    """The session file could not be laid out, so the run did not begin."""

    run_id: str
    code: TurnError
    detail: str


@attrs.frozen
class RunRefused:
    """What a run needs to be guarded is missing: the worker was not given it."""

    run_id: str
    detail: str


@attrs.frozen
class TurnNotSent:
    """The worker was gone before it was given the run; nobody has seen the messages."""

    run_id: str


@attrs.frozen
class TurnsFinished:
    turn_ids: tuple[str, ...]
    returned: tuple[Turn, ...] = ()


@attrs.frozen
class TurnsRequeued:
    turns: tuple[Turn | CorruptMarker, ...]


@attrs.frozen
class LeaseLost:
    pass


@attrs.frozen
class ConversationClosed:
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


@attrs.frozen
class StartWorker:
    """Answers WorkerStarting; WorkerReady or WorkerGone follow from outside."""


@attrs.frozen
class KillWorker:
    pass


@attrs.frozen
class ShutdownWorker:
    grace_seconds: float


@attrs.frozen
class BeginRun:
    """Lay out the session file and commit the run. Answers RunBegun, BeginRefused, SessionUnusable or LeaseLost."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int
    pid: int | None
    started_at: float | None


@attrs.frozen
class RequestCancel:
    """Commit that the live run is to end as cancelled, whoever owns it by then. Answers LeaseLost if it is not ours."""

    run_id: str


@attrs.frozen
class JoinRun:
    """Commit that a steering message belongs to the live run. Answers RunJoined, JoinRefused or LeaseLost."""

    run_id: str
    turn: Turn


@attrs.frozen
class SendTurn:
    """Open the live text, give the run to the worker. Answers RunRefused if unguarded, TurnNotSent if it is gone."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int


@attrs.frozen
class SendFrame:
    frame: Frame


@attrs.frozen
class ShowText:
    text: str


@attrs.frozen
class ShowStatus:
    status: str
    phase: str | None
    message_id: str
    tool: str | None = None  # that runs now


@attrs.frozen
class ShowEphemeral:
    text: str
    message_id: str | None


@attrs.frozen
class RecordCancelStage:
    turns: tuple[Turn, ...]
    stage: str


@attrs.frozen
class FinishTurns:
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
    returned: tuple[Turn, ...] = ()  # of the run, and read by nobody: as they are queued again


@attrs.frozen
class RequeueTurns:
    """Answers TurnsRequeued or LeaseLost. `run_id` None: a lost predecessor's run."""

    run_id: str | None
    turns: tuple[Turn, ...]
    failed: bool
    code: str
    exit_status: str | None = None


@attrs.frozen
class LoadOwed:
    """Answers OwedLoaded or LeaseLost."""


@attrs.frozen
class CloseConversation:
    """Answers ConversationClosed or LeaseLost."""


@attrs.frozen
class RemoveWorkspace:
    """Nothing of a closed conversation stays on disk."""


@attrs.frozen
class Reply:
    """The answer to whoever asked."""

    value: object


@attrs.frozen
class Dropped:
    """Something that came too late or from the wrong run was ignored; counted by `reason`."""

    reason: str
    number: int = 1


@attrs.frozen
class Note:
    """A log line; `alarm`: one that an operator should see. `fields` never hold message contents. It is written behind
    what was decided with it, see `Notes`."""

    event: str
    fields: dict[str, Any] = attrs.field(factory=dict)
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

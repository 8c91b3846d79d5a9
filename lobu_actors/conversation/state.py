"""What a conversation's actor knows, as immutable values. `decide` makes new ones; nothing here does anything."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.store.records import Turn


class WorkerPhase(StrEnum):
    STARTING = "starting"  # asked for, not ready
    READY = "ready"
    ENDING = "ending"  # told to end; nothing starts in its workspace before it is gone


class WorkerState(msgspec.Struct, frozen=True):
    worker_id: str
    phase: WorkerPhase
    capabilities: frozenset[str] = frozenset()
    pid: int | None = None
    started_at: float | None = None


class RunPhase(StrEnum):
    BEGINNING = "beginning"  # the statement that makes it live is under way
    LIVE = "live"  # the worker has it
    STOPPING = "stopping"  # cancelled: the worker was told, its end is awaited for the grace
    FINISHING = "finishing"  # the terminal statement is under way


class Question(msgspec.Struct, frozen=True):
    """An open one. Its id outside is ours, since a worker's own ids are unique in its run only."""

    question_id: str
    worker_question_id: str


class Run(msgspec.Struct, frozen=True):
    """One attempt at the turns that it joins. All times are seconds on the actor's monotonic clock."""

    run_id: str
    turns: tuple[Turn, ...]
    attempt: int
    phase: RunPhase
    started_at: float
    heard_at: float  # any frame: proof of life
    progress_at: float  # output, status change or answer: proof of progress
    text_length: int = 0  # code points
    tool: str | None = None
    tool_since: float = 0.0
    questions: tuple[Question, ...] = ()  # open ones
    asked: int = 0  # ever in this run
    waiting_since: float = 0.0  # when the first of the open questions was asked
    answers_at: float = 0.0  # when the store is asked whether somebody answered elsewhere
    provider_code: str | None = None  # the provider said no; nothing but output proves progress from then on
    stop_by: float | None = None  # end of the cancel grace
    adopted: bool = False  # an earlier supervisor began it
    reattaching: bool = False  # adopted: nothing of it counts before its text comes again
    told: tuple[tuple[str, str], ...] = ()  # (worker's question id, answer) of an adopted run, which may ask again
    joining: Turn | None = None  # a steering message; the statement that joins it is under way

    @property
    def turn_ids(self) -> tuple[str, ...]:
        return tuple(turn.turn_id for turn in self.turns)

    @property
    def message_ids(self) -> list[str]:
        return [turn.message_id for turn in self.turns]


class Limits(msgspec.Struct, frozen=True):
    """Bounds on one conversation; each is a setting."""

    reply_max_chars: int = 4_000_000
    max_open_questions: int = 100  # of one run
    cancel_grace_seconds: float = 5.0
    crash_loop_max: int = 10
    crash_loop_seconds: float = 60.0


class Moment(msgspec.Struct, frozen=True):
    """What `decide` may not find out by itself: the time (monotonic seconds) and one id that nobody has used."""

    now: float
    fresh_id: str


class State(msgspec.Struct, frozen=True):
    ref: ConversationRef
    deadlines: Deadlines
    failure: FailurePolicy
    limits: Limits
    has_agent: bool
    queue: tuple[Turn, ...] = ()
    run: Run | None = None
    worker: WorkerState | None = None
    crashes: tuple[float, ...] = ()
    not_before: float = 0.0  # backoff: no run begins earlier
    resetting: str | None = None  # the turn whose reset is under way
    accepting: bool = False  # an edge commits a message with what stood by here
    closing: bool = False
    draining: bool = False
    drain_by: float | None = None
    renewing: bool = False  # to be left as soon as nothing runs; if it is over, so much is owed that it begins anew
    over: bool = False  # the lease is gone or the conversation closed: write nothing; the next message starts afresh
    recent: tuple[str, ...] = ()  # turns that ended lately, so that a late hint is known for what it is

    def knows(self, turn_id: str) -> bool:
        return turn_id in self.recent or self.holds(turn_id)

    def holds(self, turn_id: str) -> bool:
        """It is in the queue or in the run."""
        if any(turn.turn_id == turn_id for turn in self.owed):
            return True
        return self.run is not None and self.run.joining is not None and self.run.joining.turn_id == turn_id

    @property
    def owed(self) -> tuple[Turn, ...]:
        return (self.run.turns if self.run else ()) + self.queue

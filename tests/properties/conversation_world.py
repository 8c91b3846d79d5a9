"""A whole conversation as a model: a store of one conversation, its worker, and the actor's loop around `decide`.

Every effect is carried out at once against the model; the model's writes have the guards that the real statements
have. What a test does to it are the things that happen to a real one, in any order.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta

import attrs
from msgspec.structs import replace

from lobu_actors.contract.frames import Complete, Frame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest, LeaseReleased, ReleaseLease
from lobu_actors.conversation.marker_messages import MarkersMended, MendMarkers
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.session_messages import ResetRefused, ResetSession, SessionReset
from lobu_actors.conversation.standby_messages import LookAtStandby, OpenRun, StandbySettled, StandbyTaken
from lobu_actors.conversation.standing_by import stands_by
from lobu_actors.conversation.state import Limits, Moment, State
from lobu_actors.conversation.worker_port import Gone, WorkerFrames, WorkerGone, WorkerReady
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import Turn, Verdict

REF = ConversationRef("org", "echo", "echo_u_org")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# What nobody hears while no activation lasts.
UNHEARD = (WorkerReady, WorkerFrames, WorkerGone, m.Tick, LookAtStandby, DrainRequest, BeginAnew)


@attrs.define
class World:
    failure: FailurePolicy = attrs.field(factory=FailurePolicy)
    capabilities: frozenset[str] = frozenset({"cancel", "ask"})
    now: float = 1000.0
    turns: dict[str, Turn] = attrs.field(factory=dict)  # the `turn` table
    owed: set[str] = attrs.field(factory=set)  # the `turn_marker` table
    corrupt: dict[str, bool] = attrs.field(factory=dict)  # owed turns that cannot be read: does it contradict
    terminals: dict[str, list[str]] = attrs.field(factory=dict)  # the event log's terminal events
    live_run: str | None = None
    lease_epoch: int = 0
    held_epoch: int | None = None  # what this actor believes
    state: State | None = None
    worker: str | None = None  # a living worker process
    worker_ready: bool = False
    current_run: str | None = None  # as the worker knows it
    ids: int = 0
    begun: list[str] = attrs.field(factory=list)
    closed: bool = False
    replies: list[object] = attrs.field(factory=list)
    said_read: list[str] | None = None  # what the worker's newest `complete` says that it read
    returned: int = 0
    begun_at_once: int = 0
    actor: int = 0  # counts activations
    standby: str | None = None  # the run id of what an edge has taken
    standby_epoch: int | None = None
    standby_actor: int = 0
    standby_turn: Turn | None = None  # that the edge has committed
    standby_begun: bool = False  # and its run
    settled: StandbySettled | None = None

    def fresh(self, prefix: str) -> str:
        self.ids += 1
        return f"{prefix}{self.ids}"

    # --- what happens to it

    def accept(
        self, *, hint: bool, on_busy: OnBusy = OnBusy.ENQUEUE, content: str = "hi", refused: bool = False
    ) -> None:
        turn_id = self.fresh("t")
        at = EPOCH + timedelta(milliseconds=len(self.turns))
        turn = Turn(REF, turn_id, f"m{turn_id}", content, on_busy, {}, TurnStatus.QUEUED, 1, 0, 0, 0, at)
        if refused:
            turn = replace(turn, verdict=Verdict("GUARDRAIL_REJECTED", "no"))
        self.turns[turn_id] = turn
        self.owed.add(turn_id)
        if hint:
            self.tell(m.TurnAccepted(turn))

    def take_standby(self) -> None:
        """An edge takes what the actor holds ready, if it does. It commits until `settle_standby`."""
        if self.state is not None and self.standby is None and stands_by(self.state, self.now):
            self.standby, self.standby_epoch = self.fresh("r"), self.held_epoch
            self.standby_actor = self.actor

    def commit_standby(self) -> None:
        """The statement of that edge: it begins the run if its guards hold, else the message is only accepted."""
        if self.standby is None or self.standby_turn is not None:
            return
        begins = not self.owed and self.standby_epoch == self.lease_epoch
        self.accept(hint=False)
        self.standby_turn = list(self.turns.values())[-1]
        if begins:
            assert self.live_run is None, "two live runs in one conversation"
            self.live_run, self.standby_begun = self.standby, True
            self.begun.append(self.standby_turn.turn_id)
            self.begun_at_once += 1
            self.turns[self.standby_turn.turn_id] = replace(self.standby_turn, status=TurnStatus.RUNNING)

    def settle_standby(self, *, known: bool = True) -> None:
        """It is through, whether it has committed or was refused."""
        if self.standby is None:
            return
        run_id, turn, begun = self.standby, self.standby_turn, self.standby_begun
        self.standby, self.standby_turn, self.standby_begun = None, None, False
        epoch, is_there = self.lease_epoch, self._is_there
        if is_there:
            self.settled = StandbySettled(run_id, turn if begun and known else None, known=known)
            self.tell(LookAtStandby())
            assert known or self.lease_epoch > epoch, "a commit that may still come is not fenced"
        if known and turn is not None and not (is_there and begun):
            self.tell(m.TurnAccepted(turn))

    @property
    def _is_there(self) -> bool:
        """The actor that held out what was taken."""
        return self.standby_actor == self.actor and self.state is not None and not self.state.over

    @property
    def _standby_is_out(self) -> bool:
        return self.standby is not None and self.standby_actor == self.actor

    def repeat_hint(self, index: int) -> None:
        """A hint that comes twice, or long after its turn ended; it shows the turn as it was accepted."""
        if self.turns:
            turn = list(self.turns.values())[index % len(self.turns)]
            self.tell(m.TurnAccepted(replace(turn, status=TurnStatus.QUEUED, attempt=1, failures=0)))

    def rot(self, index: int, contradicts: bool) -> None:
        """The row of something owed is lost, or becomes unreadable."""
        if self.owed:
            self.corrupt[sorted(self.owed)[index % len(self.owed)]] = contradicts

    def ready(self) -> None:
        if self.worker is not None and not self.worker_ready:
            self.worker_ready = True
            self.tell(WorkerReady(self.worker, 1, 1.0, self.capabilities))

    def say(self, frames: tuple[Frame, ...]) -> None:
        if self.worker is not None and self.worker_ready:
            ends = (frame for frame in frames if isinstance(frame, Complete) and frame.run_id == self.current_run)
            if (end := next(ends, None)) is not None:
                self.said_read = end.processed_message_ids
            self.tell(WorkerFrames(self.worker, frames))

    def answer(self, index: int) -> None:
        """A person answers; sometimes to what is not asked any more."""
        self.tell(asking.QuestionAnswered(f"{self.current_run}-{index}", "yes"))

    def worker_dies(self, exit_code: int | None) -> None:
        if self.worker is not None:
            gone, reason = self.worker, Gone.EXITED if self.worker_ready else Gone.NOT_STARTED
            self.worker, self.worker_ready, self.current_run = None, False, None
            self.tell(WorkerGone(gone, reason, "died", exit_code))

    def another_host_takes_over(self) -> None:
        self.lease_epoch += 1
        self.live_run = None

    def actor_is_lost(self) -> None:
        """kill -9 of the supervisor: state and worker are gone, the tables stay."""
        self.state, self.held_epoch, self.settled = None, None, None
        self.actor += 1
        self.worker, self.worker_ready, self.current_run = None, False, None

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        if self.state is not None and not self.state.over:
            at = next_deadline(self.state)
            if at is not None and at <= self.now:
                self.tell(m.Tick())
                assert self._looks_at() is None or self._looks_at() > self.now, "its clock spins"

    def _looks_at(self) -> float | None:
        return None if self.state is None or self.state.over else next_deadline(self.state)

    # --- the actor's loop

    def tell(self, message: m.Message) -> None:
        pending: deque[m.Message] = deque()
        if self._standby_is_out:
            pending.append(StandbyTaken())
        if self.settled is not None:
            pending.append(self.settled)
            self.settled = None
        if self.state is None or self.state.over:
            if isinstance(message, UNHEARD):
                return
            pending.clear()
            pending.append(self._activate())
        if not isinstance(message, LookAtStandby):
            pending.append(message)
        for _ in range(10_000):
            assert self.state is not None
            if not pending:
                if self.state.over and (self.state.renewing or self._standby_is_out):
                    self.state = None  # it looks again, in a new activation
                    self.tell(m.Sweep())
                return
            self.state, effects = decide(self.state, pending.popleft(), Moment(self.now, self.fresh("r")))
            results = []
            for effect in effects:
                result = self._apply(effect)
                if result is not None:
                    results.append(result)
                    if isinstance(result, m.LeaseLost):
                        break
            pending.extendleft(reversed(results))
        raise AssertionError("decide never comes to rest")

    def _activate(self) -> m.Message:
        self.actor += 1
        self.lease_epoch += 1
        self.held_epoch = self.lease_epoch
        self.live_run = None
        self._kill()
        self.state = State(REF, Deadlines(), self.failure, Limits(), has_agent=True)
        return m.Recovered(tuple(self._owed()))

    def _owed(self) -> list[Turn | CorruptMarker]:
        found = sorted((self.turns[turn_id] for turn_id in self.owed), key=lambda turn: turn.accepted_at)
        return [self._read(turn) for turn in found]

    def _read(self, turn: Turn) -> Turn | CorruptMarker:
        if turn.turn_id not in self.corrupt:
            return turn
        return CorruptMarker(REF, turn.turn_id, turn.message_id, "rotten", self.corrupt[turn.turn_id])

    @property
    def _holds(self) -> bool:
        return self.held_epoch == self.lease_epoch

    def _kill(self) -> None:
        self.worker, self.worker_ready, self.current_run = None, False, None

    def _apply(self, effect: m.Effect) -> m.Message | None:
        match effect:
            case m.StartWorker():
                assert self.worker is None, "a second worker in one workspace"
                self.worker, self.worker_ready = self.fresh("w"), False
                return m.WorkerStarting(self.worker)
            case m.KillWorker() | m.ShutdownWorker():
                return self._killed()
            case m.BeginRun(run_id, turns, attempt):
                return self._begin(run_id, turns, attempt)
            case OpenRun(run_id):
                return m.RunBegun(run_id)
            case m.JoinRun(run_id, turn):
                return self._join(run_id, turn)
            case m.SendTurn(run_id):
                assert self.worker is not None
                assert self.worker_ready
                self.current_run = run_id
            case m.FinishTurns():
                return self._finish(effect)
            case m.RequeueTurns(_, turns, failed):
                return self._requeue(turns, failed)
            case m.LoadOwed():
                return m.OwedLoaded(tuple(self._owed())) if self._holds else m.LeaseLost()
            case MendMarkers(turn_ids):
                return self._mend(turn_ids)
            case ReleaseLease():
                assert self.live_run is None or not self._holds, "a lease is given up beneath a live run"
                return LeaseReleased()
            case asking.LoadAnswers():
                return asking.AnswersLoaded(())
            case ResetSession(turn):
                return self._reset(turn)
            case m.CloseConversation():
                if not self._holds or self.owed:
                    return m.LeaseLost()
                self.closed = True
                return m.ConversationClosed()
            case asking.RecordQuestion() | asking.RecordAnswer() | m.RecordCancelStage():
                return None if self._holds else m.LeaseLost()
            case m.Reply(value):
                self.replies.append(value)
        return None

    def _killed(self) -> m.Message | None:
        if self.worker is None:
            return None
        gone = self.worker
        self._kill()
        return WorkerGone(gone, Gone.EXITED, "killed", None, 9)

    def _begin(self, run_id: str, turns: tuple[Turn, ...], attempt: int) -> m.Message:
        if not self._holds:
            return m.LeaseLost()
        if any(self.turns[turn.turn_id].status is not TurnStatus.QUEUED for turn in turns):
            return m.BeginRefused(run_id, tuple(self._owed()))
        assert self.live_run is None, "two live runs in one conversation"
        assert max(self.turns[turn.turn_id].attempt for turn in turns) == attempt
        assert all(turn.verdict is None for turn in turns), "a worker sees what a guardrail refused"
        self.live_run = run_id
        self.begun += [turn.turn_id for turn in turns]
        for turn in turns:
            now = self.turns[turn.turn_id]
            self.turns[turn.turn_id] = replace(now, status=TurnStatus.RUNNING, attempt=attempt)
        return m.RunBegun(run_id)

    def _reset(self, turn: Turn) -> m.Message:
        if self.turns[turn.turn_id].status is not TurnStatus.QUEUED:
            return ResetRefused(turn)
        assert self.worker is None, "a worker's memory outlives its session"
        assert self.live_run is None or not self._holds, "a session is reset beneath a live run"
        return SessionReset(turn) if self._holds else m.LeaseLost()

    def _join(self, run_id: str, turn: Turn) -> m.Message:
        if not self._holds:
            return m.LeaseLost()
        now = self.turns[turn.turn_id]
        assert now.verdict is None, "a worker sees what a guardrail refused"
        if self.live_run != run_id or now.status is not TurnStatus.QUEUED:
            return m.JoinRefused(turn)
        attempt = next(t.attempt for t in self.turns.values() if t.status is TurnStatus.RUNNING)
        self.turns[turn.turn_id] = replace(now, status=TurnStatus.RUNNING, attempt=attempt)
        return m.RunJoined(turn)

    def _mend(self, turn_ids: tuple[str, ...]) -> m.Message:
        if not self._holds:
            return m.LeaseLost()
        for turn_id in turn_ids:
            assert self.corrupt.pop(turn_id), "what could be ended was given to be mended"
            verdict = Verdict("MARKER_CORRUPT", "lost")
            self.turns[turn_id] = replace(self.turns[turn_id], status=TurnStatus.QUEUED, verdict=verdict)
        return MarkersMended(tuple(self._owed()))

    def _finish(self, effect: m.FinishTurns) -> m.Message:
        taken = [turn.turn_id for turn in effect.turns if turn.turn_id in self.owed]
        if not self._holds or not taken:
            return m.LeaseLost()
        for turn_id in taken:
            self.owed.discard(turn_id)
            self.turns[turn_id] = replace(self.turns[turn_id], status=effect.status)
            self.terminals.setdefault(turn_id, []).append(effect.code or effect.status.value)
        if effect.run_id is not None:
            assert effect.run_id == self.live_run
            self.live_run = None
        if effect.status is TurnStatus.COMPLETED and effect.run_id is not None and self.said_read is not None:
            unread = [turn.message_id for turn in effect.turns[1:] if turn.message_id not in self.said_read]
            assert not unread, "a message counts as answered that its worker has not read"
            assert not {turn.message_id for turn in effect.returned} & set(self.said_read)
        for turn in effect.returned:
            now = self.turns[turn.turn_id]
            assert now.status is TurnStatus.RUNNING, "what is returned was in the run"
            self.turns[turn.turn_id] = replace(now, status=TurnStatus.QUEUED, attempt=now.attempt + 1)
            assert self.turns[turn.turn_id].attempt == turn.attempt
            self.returned += 1
        return m.TurnsFinished(tuple(turn.turn_id for turn in effect.turns), effect.returned)

    def _requeue(self, turns: tuple[Turn, ...], failed: bool) -> m.Message:
        if not self._holds or any(turn.turn_id not in self.owed for turn in turns):
            return m.LeaseLost()
        self.live_run = None
        for turn in turns:
            now = self.turns[turn.turn_id]
            self.turns[turn.turn_id] = replace(
                now, status=TurnStatus.QUEUED, attempt=now.attempt + 1, failures=now.failures + failed
            )
        there = (turn for turn in turns if not self.corrupt.get(turn.turn_id))  # lost rows are not given back
        return m.TurnsRequeued(tuple(self._read(self.turns[turn.turn_id]) for turn in there))

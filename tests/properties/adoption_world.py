"""A conversation whose supervisor may be killed between any two effects, and whose worker outlives it.

The worker is honest and keeps what the protocol asks of it: its text, its open questions, its end. Both directions of
its socket are queues of frames, so that anything may be under way when a supervisor dies.
"""

from __future__ import annotations

from collections import deque

import attrs

from lobu_actors.contract.frames import (
    CANCELLED,
    RUN_UNKNOWN,
    TEXT_OFFSET,
    Answer,
    Ask,
    Cancel,
    Complete,
    Delta,
    Fail,
    Frame,
    Reattach,
    TurnFrame,
)
from lobu_actors.contract.states import RunStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation.adoption_messages import AdoptRun, RunAdopted
from lobu_actors.conversation.policy import Deadlines
from lobu_actors.conversation.state import Limits, State, WorkerPhase, WorkerState
from lobu_actors.conversation.worker_port import WorkerFrames
from lobu_actors.store.question_records import AskedQuestion
from lobu_actors.store.records import RunRecord
from tests.properties.conversation_world import REF, World

PIECE = 3  # code points of text in one frame when it is sent again


class SupervisorKilled(Exception):
    """Between two effects."""


@attrs.define
class HonestWorker:
    capabilities: frozenset[str]
    run_id: str | None = None
    text: str = ""
    written: int = 0
    open: dict[str, Ask] = attrs.field(factory=dict)
    heard: dict[tuple[str, str], str] = attrs.field(factory=dict)  # (run, question): its answer
    terminal: Frame | None = None
    inbox: deque[Frame] = attrs.field(factory=deque)
    out: deque[Frame] = attrs.field(factory=deque)
    turns: list[str] = attrs.field(factory=list)  # runs that were carried out

    @property
    def busy(self) -> bool:
        return self.run_id is not None and self.terminal is None

    def write(self, length: int) -> None:
        if self.busy:
            piece = "".join(chr(ord("a") + (self.written + n) % 26) for n in range(length))
            self.written += length
            self.text += piece
            self.out.append(Delta(run_id=self.run_id or "", text=piece))

    def ask(self) -> None:
        if self.busy and not self.open:
            self.written += 1
            frame = Ask(run_id=self.run_id or "", question_id=f"q{self.written}", prompt="?")
            self.open[frame.question_id] = frame
            self.out.append(frame)

    def end(self, frame: Frame) -> None:
        if self.busy:
            self.terminal = frame
            self.open.clear()
            self.out.append(frame)

    def finish(self) -> None:
        if not self.open:
            self.end(Complete(run_id=self.run_id or "", text=None))

    def hear(self) -> None:
        """Take one frame of its socket."""
        if not self.inbox:
            return
        frame = self.inbox.popleft()
        run_id = getattr(frame, "run_id", None)
        if isinstance(frame, TurnFrame):
            if run_id != self.run_id:
                assert not self.busy, "a second run while one goes on"
                self.run_id, self.text, self.terminal = run_id, "", None
                self.turns.append(frame.run_id)
        elif run_id != self.run_id:
            if isinstance(frame, Reattach):
                self.out.append(Fail(run_id=frame.run_id, code=RUN_UNKNOWN))
        elif isinstance(frame, Reattach):
            self.send_again()
        elif isinstance(frame, Answer):
            if self.open.pop(frame.question_id, None):
                self.heard[frame.run_id, frame.question_id] = frame.answer
        elif isinstance(frame, Cancel):
            self.end(Fail(run_id=frame.run_id, code=CANCELLED))

    def send_again(self) -> None:
        run_id = self.run_id or ""
        if TEXT_OFFSET in self.capabilities:
            for at in range(0, max(len(self.text), 1), PIECE):
                self.out.append(Delta(run_id=run_id, text=self.text[at : at + PIECE], text_offset=at))
        else:
            self.out.append(Delta(run_id=run_id, text=self.text))
        self.out.extend(self.open.values())
        if self.terminal is not None:
            self.out.append(self.terminal)


@attrs.define
class AskedRow:
    run_id: str
    question_id: str
    worker_question_id: str
    answer: str | None = None
    told: bool = False


@attrs.define(slots=False)
class AdoptionWorld(World):
    process: HonestWorker | None = None
    killed_after: int | None = None  # effects until the supervisor is killed
    shown: str = ""
    texts: list[tuple[str, str]] = attrs.field(factory=list)  # (shown, written) of each completed run
    asked: list[AskedRow] = attrs.field(factory=list)  # the `question` table

    # --- what happens to it

    def ready(self) -> None:
        if self.worker is not None and self.process is None:
            self.process = HonestWorker(self.capabilities)
        self._guarded(super().ready)

    def deliver(self, number: int) -> None:
        """The supervisor reads up to that many frames, and handles them as far as it lives."""
        process = self.process
        if process is None or self.state is None or self.state.over or not process.out:
            return
        batch = tuple(process.out.popleft() for _ in range(min(number, len(process.out))))
        worker = self.worker
        if worker is not None:
            self._guarded(lambda: self.tell(WorkerFrames(worker, batch)))

    def told(self, message: m.Message) -> None:
        self._guarded(lambda: self.tell(message))

    def answer_question(self, *, hint: bool) -> None:
        """A person answers the oldest question that is open."""
        for row in self.asked:
            if row.answer is None and row.run_id == self.live_run:
                row.answer = "yes"
                if hint and self.state is not None:
                    self.told(asking.QuestionAnswered(row.question_id, "yes"))
                return

    def kill_supervisor(self) -> None:
        self.state, self.held_epoch = None, None

    def worker_dies(self, exit_code: int | None) -> None:
        self.process = None
        self._guarded(lambda: super(AdoptionWorld, self).worker_dies(exit_code))

    def _guarded(self, act: object) -> None:
        assert callable(act)
        try:
            act()
        except SupervisorKilled:
            self.kill_supervisor()

    # --- the actor's loop

    def _activate(self) -> m.Message:
        self.lease_epoch += 1
        self.held_epoch = self.lease_epoch
        self.state = State(REF, Deadlines(), self.failure, Limits(), has_agent=True)
        record = worker = None
        if self.live_run is not None:
            record = RunRecord(self.live_run, self._running(), RunStatus.LIVE, "h", 1, self._attempt(), 1, 1.0)
            if self.process is not None and self.worker_ready:
                self._forget_what_waits(self.process)
        if self.live_run is not None and self.process is not None and self.worker_ready:
            assert self.worker is not None
            worker = WorkerState(self.worker, WorkerPhase.READY, self.process.capabilities, 1, 1.0)
        else:
            self._kill()  # it is idle, or was in its handshake
        return m.Recovered(tuple(self._owed()), record, worker)

    def _forget_what_waits(self, process: HonestWorker) -> None:
        """As for a worker that cannot say where its text begins."""
        if TEXT_OFFSET not in process.capabilities:
            process.out = deque(frame for frame in process.out if isinstance(frame, Ask | Complete | Fail))
            if any(isinstance(frame, Complete) and frame.text is None for frame in process.out):
                self._kill()

    def _running(self) -> tuple[str, ...]:
        return tuple(name for name in self.turns if name in self.owed and self.turns[name].status == "running")

    def _attempt(self) -> int:
        return max((self.turns[turn_id].attempt for turn_id in self._running()), default=1)

    def _kill(self) -> None:
        super()._kill()
        self.process = None

    def _apply(self, effect: m.Effect) -> m.Message | None:
        if self.killed_after is not None:
            if self.killed_after == 0:
                self.killed_after = None
                raise SupervisorKilled
            self.killed_after -= 1
        match effect:
            case m.ShowText(text):
                self.shown += text
            case m.BeginRun():
                self.shown = ""
            case AdoptRun(run_id):
                return self._adopt(run_id)
            case m.SendTurn(run_id):
                assert self.process is not None
                self.process.inbox.append(TurnFrame(run_id=run_id, attempt=1, messages=[], run_token=""))
            case m.SendFrame(frame):
                if self.process is not None:
                    self.process.inbox.append(frame)
                return None
            case asking.RecordQuestion() if self._holds:
                assert self.live_run == effect.run_id
                assert not any(row.question_id == effect.question_id for row in self.asked), "one id for two questions"
                self.asked.append(AskedRow(effect.run_id, effect.question_id, effect.worker_question_id))
            case asking.RecordAnswer() if self._holds:
                [row] = [row for row in self.asked if row.question_id == effect.question_id]
                row.told = True
            case asking.LoadAnswers(ids):
                known = [(row.question_id, row.answer) for row in self.asked if row.question_id in ids]
                return asking.AnswersLoaded(tuple((key, answer) for key, answer in known if answer is not None))
            case m.FinishTurns() if effect.run_id is None and self._holds:
                if set(self._running()) & {turn.turn_id for turn in effect.turns}:
                    self.live_run = None
            case m.FinishTurns() if effect.status == "completed" and self._holds:
                written = "" if self.process is None else self.process.text
                self.texts.append((self.shown if effect.text is None else effect.text, written))
        return super()._apply(effect)

    def _adopt(self, run_id: str) -> m.Message:
        if not self._holds or self.live_run != run_id:
            return m.LeaseLost()
        self.shown = ""
        questions = tuple(
            AskedQuestion(row.question_id, row.worker_question_id, row.answer, row.told)
            for row in self.asked
            if row.run_id == run_id
        )
        return RunAdopted(run_id, 1.0, questions)

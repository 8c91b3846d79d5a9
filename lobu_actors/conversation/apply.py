"""Carrying out what `decide` wants: one line an effect. Owns the worker handle of one activation.

Knows the store, workers and feed by their protocols only.
"""

from __future__ import annotations

import structlog

from lobu_actors import telemetry
from lobu_actors.contract.timeline import Moment
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation import session_messages as about
from lobu_actors.conversation.adoption_messages import AdoptRun
from lobu_actors.conversation.agent_rules import AgentRules
from lobu_actors.conversation.drain_messages import ReleaseLease
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.marker_messages import MendMarkers
from lobu_actors.conversation.marks import Marks
from lobu_actors.conversation.notes import Notes
from lobu_actors.conversation.outcome import exit_status_text
from lobu_actors.conversation.output import Output
from lobu_actors.conversation.session import Session
from lobu_actors.conversation.standby_messages import OpenRun
from lobu_actors.conversation.turn_frame import UnguardedRun, turn_frame
from lobu_actors.conversation.worker_port import Deliver, Worker, WorkerGone, WorkerReady, WorkerRequest
from lobu_actors.conversation.writes import Writes
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.writer import FeedWriter
from lobu_actors.store.records import Activation

log = structlog.get_logger(__name__)


class Effects:
    """The hands of one activation."""

    def __init__(
        self,
        environment: Environment,
        activation: Activation,
        feed: Feed,
        rules: AgentRules,
        deliver: Deliver,
        worker: Worker | None,
    ) -> None:
        self._lease = activation.lease
        self._rules = rules
        self._workers = environment.workers
        self._workspace = environment.workspaces.of(self._lease.ref)
        self._deliver = deliver
        last_seq = activation.conversation.last_seq
        self._output = Output(FeedWriter(feed, activation.lease.epoch, last_seq), last_seq)
        self._run_token = environment.run_token
        self._session = Session(
            self._lease.ref, environment, self._workspace, activation.conversation.generation, activation.snapshot
        )
        self._marks = Marks()
        self._marks.note(Moment.LEASE, f"epoch {self._lease.epoch}")
        self._writes = Writes(environment, self._lease, self._workspace, self._session, self._output, self._marks)
        self._worker = worker
        self._log = log.bind(conversation=self._lease.ref.conversation_id, epoch=self._lease.epoch)
        self.notes = Notes(environment.timers, self._write)

    async def apply(self, effect: m.Effect) -> m.Message | None:
        """Do it; gives at most one message back for `decide`. Replies are not done here but returned by the actor."""
        match effect:
            case m.ShowText(text):
                self._output.push(text)
                if self._marks.awaits_text:
                    self._marks.text()
            case m.FinishTurns():
                return await self._writes.finish(effect)
            case m.BeginRun():
                return await self._writes.begin(effect)
            case OpenRun():
                return await self._writes.open(effect)
            case AdoptRun():
                return await self._writes.adopt(effect)
            case m.RequestCancel(run_id):
                self._marks.note(Moment.CANCEL_REQUESTED)
                return await self._writes.request_cancel(run_id)
            case m.SendTurn():
                return await self._send_turn(effect)
            case m.StartWorker():
                return self._start_worker()
            case m.RequeueTurns():
                return await self._writes.requeue(effect)
            case asking.RecordQuestion():
                return await self._writes.ask(effect)
            case asking.RecordAnswer() | m.RecordCancelStage():
                return await self._writes.record(effect)
            case m.JoinRun():
                return await self._writes.join(effect)
            case asking.LoadAnswers(question_ids):
                return await self._writes.load_answers(question_ids)
            case m.LoadOwed():
                return await self._writes.load_owed()
            case MendMarkers(turn_ids):
                return await self._writes.mend_markers(turn_ids)
            case about.ResetSession():
                return await self._writes.reset(effect)
            case about.PurgeSnapshots():
                return await self._writes.purge_snapshots()
            case m.CloseConversation():
                return await self._writes.close()
            case ReleaseLease(owes):
                return await self._writes.release(owes)
            case m.RemoveWorkspace():
                await self._workspace.remove()
            case _:
                self._apply_at_once(effect)
        return None

    def end_output(self) -> None:
        """Nothing is shown of what runs any more; whoever goes on with it shows it anew."""
        self._output.end()

    def heard(self, signal: WorkerReady | WorkerGone) -> None:
        """Of the worker, at the moment when it comes, which may be long before the actor takes it from its mailbox."""
        if self._worker is None or self._worker.worker_id != signal.worker_id:
            return
        if isinstance(signal, WorkerReady):
            self._marks.note(Moment.WORKER_READY, None if signal.pid is None else f"pid {signal.pid}")
        else:
            self._marks.worker_gone(exit_status_text(signal))

    def kill_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()

    def shutdown_worker(self, grace_seconds: float) -> None:
        if self._worker is not None:
            self._worker.shutdown(grace_seconds)

    def _apply_at_once(self, effect: m.Effect) -> None:
        match effect:
            case m.SendFrame(frame):
                if self._worker is not None:
                    self._worker.send(frame)
            case m.ShowStatus(status, phase, message_id, tool, extra):
                self._marks.tool(tool)
                self._output.status(status, phase, message_id, extra)
            case m.ShowEphemeral(text, message_id, extra):
                self._output.ephemeral(text, message_id, extra)
            case m.KillWorker():
                self.kill_worker()
            case m.ShutdownWorker(grace_seconds):
                self.shutdown_worker(grace_seconds)
            case m.Dropped(reason, number):
                telemetry.DROPPED_FRAMES.labels(reason).inc(number)
            case m.Note():
                self.notes.add(effect)
            case _:
                raise AssertionError(f"not an effect: {effect!r}")

    def _write(self, note: m.Note) -> None:
        event, fields = note.event, note.fields
        (self._log.error if note.alarm else self._log.info)(event, **fields)

    def _start_worker(self) -> m.Message:
        assert self._rules.agent is not None, "decide starts no worker without an agent"
        request = WorkerRequest(
            ref=self._lease.ref,
            worker=self._rules.agent.worker,
            settings=self._rules.settings,
            deadlines=self._rules.deadline_seconds,
            startup_seconds=self._rules.deadlines.startup_seconds,
        )
        self._marks.note(Moment.WORKER_ASKED)
        self._worker = self._workers.start(request, self._deliver)
        return m.WorkerStarting(self._worker.worker_id)

    async def _send_turn(self, effect: m.SendTurn) -> m.Message | None:
        ref = self._lease.ref
        try:
            frame = turn_frame(
                ref,
                effect.run_id,
                self._writes.files.told(effect.turns),
                effect.attempt,
                run_token=self._run_token(ref, effect.run_id, self._rules.deadlines.turn_seconds),
                summary=await self._session.summary(),
                traceparent=self._writes.traces.for_worker(effect.turns[0], effect.run_id) if effect.turns else None,
            )
        except UnguardedRun as error:
            return m.RunRefused(effect.run_id, str(error))
        assert self._worker is not None, "decide begins a run with a ready worker only"
        if not self._worker.send(frame):
            return m.TurnNotSent(effect.run_id)
        self._marks.note(Moment.SENT)
        return None

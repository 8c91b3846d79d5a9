"""The guarded writes of one activation. Each asks until the outcome is known, then tells readers, then `decide`.

A write that finds the lease gone answers LeaseLost and is counted; nothing is published for it.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio
from msgspec.structs import replace

from lobu_actors import telemetry
from lobu_actors.contract import events
from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.contract.timeline import Moment
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation import session_messages as about
from lobu_actors.conversation.adoption_messages import AdoptRun, RunAdopted
from lobu_actors.conversation.commit import until_known
from lobu_actors.conversation.drain_messages import LeaseReleased
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.marker_messages import MarkersMended
from lobu_actors.conversation.marks import Marks
from lobu_actors.conversation.output import Output
from lobu_actors.conversation.session import Session
from lobu_actors.conversation.standby_messages import OpenRun
from lobu_actors.conversation.traces import Traces
from lobu_actors.conversation.turn_files import Taken, TurnFiles
from lobu_actors.conversation.worker_port import SessionFileInvalid, Workspace, is_disk_full
from lobu_actors.runtime.scheduling import others_first
from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.errors import SnapshotCorrupt, StoreRejected
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import (
    FinishRun,
    Lease,
    NewEvent,
    RequeueRun,
    StartRun,
    Turn,
    TurnEnd,
)

log = structlog.get_logger(__name__)

OTHER_CODE = "OTHER"  # in metrics: a code of a worker's own


class Writes:
    def __init__(
        self,
        environment: Environment,
        lease: Lease,
        workspace: Workspace,
        session: Session,
        output: Output,
        marks: Marks,
    ) -> None:
        self._store = environment.store
        self._lease = lease
        self._session = session
        self._output = output
        self._marks = marks
        self.traces = Traces(lease.ref, environment.spans, marks, environment.clock_ms)
        self._patience = environment.patience
        self._standbys = environment.standbys
        self._placement = environment.placement
        self.files = TurnFiles(lease.ref, environment, workspace)
        self._max_owed = environment.max_owed_turns
        self._clock_ms = environment.clock_ms
        self._recent = environment.recent

    async def begin(self, effect: m.BeginRun) -> m.Message:
        if (unusable := await self._lay_out(effect)) is not None:
            return unusable
        restarts: tuple[Data, ...] = ()
        if effect.attempt > 1:
            restarts = tuple(events.restart(turn.message_id, effect.attempt, "retry") for turn in effect.turns)
        start = StartRun(effect.run_id, _ids(effect.turns), effect.attempt, effect.pid, effect.started_at, restarts)
        asked = trio.current_time()
        try:
            written = await until_known("start_run", lambda: self._store.start_run(self._lease, start), self._patience)
        except StoreRejected as error:
            log.error("run cannot be begun", run_id=effect.run_id, error=str(error))
            return m.SessionUnusable(effect.run_id, TurnError.INTERNAL_ERROR, "the run cannot be recorded")
        if written is not None:
            self._marks.begin((asked + trio.current_time()) / 2)
            self._output.publish(written)
            self._output.begin(effect.turns[0].message_id, effect.attempt)
            return m.RunBegun(effect.run_id)
        # Nothing was written: the lease is lost, or a late hint brought a turn that is not queued any more.
        owed = await self._owed()
        return _lost("start_run") if owed is None else m.BeginRefused(effect.run_id, owed)

    async def open(self, effect: OpenRun) -> m.Message:
        heard = trio.current_time()
        if (unusable := await self._lay_out(effect)) is not None:
            return unusable
        self._marks.begin(heard)
        self._output.begin(effect.turns[0].message_id, effect.attempt)
        return m.RunBegun(effect.run_id)

    async def _lay_out(self, effect: m.BeginRun | OpenRun) -> m.SessionUnusable | None:
        try:
            await self._session.lay_out()
        except (SnapshotCorrupt, SessionFileInvalid, OSError) as error:
            log.error("session file cannot be laid out", run_id=effect.run_id, error=str(error))
            return m.SessionUnusable(effect.run_id, _code_of(error), str(error))
        try:
            await self.files.lay_in(effect.turns)
        except OSError as error:
            log.error("files cannot be laid out", run_id=effect.run_id, error=str(error))
            code = TurnError.DISK_FULL if is_disk_full(error) else TurnError.INTERNAL_ERROR
            return m.SessionUnusable(effect.run_id, code, "the message's files cannot be laid out")
        return None

    async def adopt(self, effect: AdoptRun) -> m.Message:
        adopt = partial(self._store.adopt_run, self._lease, effect.run_id)
        adopted = await until_known("adopt_run", adopt, self._patience)
        if adopted is None:
            return _lost("adopt_run")
        self._session.adopt()
        self._marks.begin(trio.current_time() - adopted.age_seconds)
        self._marks.note(Moment.ADOPTED)
        self._output.begin(effect.message_id, effect.attempt, adopted.start_seq)
        return RunAdopted(effect.run_id, adopted.age_seconds, adopted.questions, adopted.provider_failed_code)

    async def request_cancel(self, run_id: str) -> m.Message | None:
        request = partial(self._store.request_cancel, self._lease, run_id)
        return None if await until_known("request_cancel", request, self._patience) else _lost("request_cancel")

    async def finish(self, effect: m.FinishTurns) -> m.Message:
        taken = Taken()
        if effect.run_id is not None and effect.returned:
            # First, so that a supervisor that dies in between leaves a run like any other, and messages in the queue.
            leave = partial(self._store.leave_run, self._lease, effect.run_id, _ids(effect.returned))
            if not await until_known("leave_run", leave, self._patience):
                return _lost("leave_run")
        try:
            if effect.run_id is not None and effect.status is TurnStatus.COMPLETED:
                taken = await self.files.take_out()
            finish = await self._finish_run(effect, taken)
            written = await until_known(
                "finish_run", lambda: self._store.finish_run(self._lease, finish), self._patience
            )
        except (SessionFileInvalid, StoreRejected, OSError) as error:
            code = _code_of(error)
            if effect.code == code:
                raise
            # What cannot be stored must not leave its turn without an end.
            log.error("reply cannot be stored", run_id=effect.run_id, code=code, error=str(error))
            await self.files.discard(taken)
            return await self.finish(_as_failure(effect, code))
        if written is None:
            await self.files.discard(taken)
            return _lost("finish_run")
        self._output.publish(written)
        if effect.run_id is not None:
            self._output.end()
        self._standbys.expect(self._lease.ref)
        await others_first()  # readers
        self.traces.finished(effect)
        if effect.run_id is not None:
            self._marks.end()
            if effect.status is TurnStatus.COMPLETED:
                await self._session.stored(effect.run_id, finish.segment)
        self._count(effect, len(written))
        ended = [turn for turn in effect.turns if isinstance(turn, Turn)]
        self._recent.ended(self._lease.ref, ended, effect.code, self._clock_ms())
        return m.TurnsFinished(_ids(effect.turns), effect.returned)

    def _count(self, effect: m.FinishTurns, written: int) -> None:
        telemetry.TURNS_ENDED.labels(effect.status.value, _counted(effect.code)).inc(written)
        seconds, now = telemetry.turn_seconds(effect.status.value), self._clock_ms() / 1e3
        for turn in effect.turns:
            if isinstance(turn, Turn):
                seconds.observe(max(0.0, now - turn.accepted_at.timestamp()))
        if effect.run_id is not None and effect.code is not None and self._marks.worker_gone_at is not None:
            telemetry.CRASH_SECONDS.observe(trio.current_time() - self._marks.worker_gone_at)

    async def requeue(self, effect: m.RequeueTurns) -> m.Message:
        requeue = RequeueRun(
            effect.run_id,
            _ids(effect.turns),
            effect.failed,
            effect.code,
            effect.exit_status,
            timeline=self._marks.of_run(effect.run_id),
        )
        turns = await until_known("requeue_run", lambda: self._store.requeue_run(self._lease, requeue), self._patience)
        if turns is None:
            return _lost("requeue_run")
        self.traces.requeued(effect)
        self._output.end()
        self._marks.end()
        return m.TurnsRequeued(tuple(turns))

    async def join(self, effect: m.JoinRun) -> m.Message:
        join = partial(self._store.join_run, self._lease, effect.run_id, effect.turn.turn_id)
        joined = await until_known("join_run", join, self._patience)
        if joined is None:
            return _lost("join_run")
        return m.RunJoined(effect.turn) if joined else m.JoinRefused(effect.turn)

    async def ask(self, effect: asking.RecordQuestion) -> m.Message | None:
        options = None if effect.options is None else list(effect.options)
        attempt, text_offset = self._output.position
        data = events.question(effect.question_id, effect.prompt, options, effect.turn.message_id)
        question = NewQuestion(
            question_id=effect.question_id,
            worker_question_id=effect.worker_question_id,
            run_id=effect.run_id,
            turn_id=effect.turn.turn_id,
            prompt=effect.prompt,
            options=effect.options,
            data=events.with_extra(data, effect.extra),
            attempt=attempt,
            text_offset=text_offset,
        )
        ask = partial(self._store.ask_question, self._lease, question)
        written = await until_known("ask_question", ask, self._patience)
        if written is None:
            return _lost("ask_question")
        self._marks.note(Moment.QUESTION, effect.question_id)
        self._output.publish([written])
        return None

    async def load_answers(self, question_ids: tuple[str, ...]) -> m.Message:
        find = partial(self._store.find_answers, self._lease.ref, question_ids)
        answers = await until_known("find_answers", find, self._patience)
        return asking.AnswersLoaded(tuple(answers.items()))

    async def load_owed(self) -> m.Message:
        turns = await self._owed()
        return _lost("load_owed") if turns is None else m.OwedLoaded(turns)

    async def mend_markers(self, turn_ids: tuple[str, ...]) -> m.Message:
        mend = partial(self._store.mend_markers, self._lease, turn_ids)
        if not await until_known("mend_markers", mend, self._patience):
            return _lost("mend_markers")
        turns = await self._owed()
        return _lost("load_owed") if turns is None else MarkersMended(turns)

    async def record(self, effect: m.Record) -> m.Message | None:
        """Durable events that end nothing."""
        if isinstance(effect, asking.RecordAnswer):
            self._marks.note(Moment.ANSWERED, effect.question_id)
        else:
            self._marks.note(Moment.CANCEL, effect.stage)
        attempt, text_offset = self._output.position
        for type, data, turn in _recorded(effect):
            event = NewEvent(type, data, turn_id=turn.turn_id, attempt=attempt, text_offset=text_offset)
            written = await until_known(
                "append_event", partial(self._store.append_event, self._lease, event), self._patience
            )
            if written is None:
                return _lost("append_event")
            self._output.publish([written])
        return None

    async def close(self) -> m.Message:
        written = await until_known(
            "close_conversation", lambda: self._store.close_conversation(self._lease, "deleted"), self._patience
        )
        if written is None:
            return _lost("close_conversation")
        self._output.publish([written])
        return m.ConversationClosed()

    async def release(self, owes: bool) -> m.Message:
        ref = self._lease.ref
        await until_known("release_lease", lambda: self._store.release(self._lease), self._patience)
        if owes:
            await self._placement.released(ref)
        return LeaseReleased()

    async def reset(self, effect: about.ResetSession) -> m.Message:
        """The file goes first: after a crash in between, the turn is still owed and all of this happens again."""
        turn = effect.turn
        found = await until_known("find_turn", lambda: self._store.find_turn(turn.ref, turn.message_id), self._patience)
        if found is None or found.status is not TurnStatus.QUEUED:
            return about.ResetRefused(turn)
        try:
            generation = await self._session.begin_anew(self._lease, turn.payload)
        except (OSError, SessionFileInvalid) as error:
            log.error("session file cannot be removed", turn_id=turn.turn_id, error=str(error))
            return about.ResetFailed(turn, "the session file cannot be removed")
        return _lost("reset_session") if generation is None else about.SessionReset(turn)

    async def purge_snapshots(self) -> m.Message:
        number = await until_known("purge_snapshots", lambda: self._store.purge_snapshots(self._lease), self._patience)
        if number is None:
            return _lost("purge_snapshots")
        self._session.snapshots_purged()
        return about.SnapshotsPurged(number)

    async def _owed(self) -> tuple[Turn | CorruptMarker, ...] | None:
        turns = await until_known(
            "load_owed", lambda: self._store.load_owed(self._lease, limit=self._max_owed), self._patience
        )
        return None if turns is None else tuple(turns)

    async def _finish_run(self, effect: m.FinishTurns, taken: Taken) -> FinishRun:
        """Everything that goes into the one statement."""
        ours = effect.run_id is not None
        completed = effect.status is TurnStatus.COMPLETED
        text = (effect.text or "") if completed and not ours else ""
        if ours and effect.status in (TurnStatus.COMPLETED, TurnStatus.CANCELLED):
            text = self._output.final_text(effect.text)
        attempt, text_offset = (None, None) if ours else self._output.position
        now = self._clock_ms()
        return FinishRun(
            run_id=effect.run_id,
            status=effect.run_status,
            turn_status=effect.status,
            ends=tuple(_end(effect, turn, text, now, taken) for turn in effect.turns),
            error_code=effect.code,
            exit_status=effect.exit_status,
            usage=effect.usage,
            segment=await self._session.segment(effect.run_id) if completed and effect.run_id is not None else None,
            attempt=attempt,
            text_offset=text_offset,
            file_ids=taken.file_ids,
            timeline=self._marks.of_run(effect.run_id),
        )


def _end(effect: m.FinishTurns, turn: Turn | CorruptMarker, text: str, now: int, taken: Taken) -> TurnEnd:
    processed = [joined.message_id for joined in effect.turns]
    match effect.status:
        case TurnStatus.COMPLETED:
            data = events.complete(turn.message_id, processed, text, effect.usage, now)
            data |= taken.event_fields()
            if effect.tool_calls:
                data["toolCalls"] = list(effect.tool_calls)
            return TurnEnd(turn.turn_id, EventType.COMPLETE, events.with_extra(data, effect.extra))
        case TurnStatus.CANCELLED:
            return TurnEnd(turn.turn_id, EventType.CANCELLED, events.cancelled(turn.message_id, processed, text, now))
    code = effect.code or TurnError.INTERNAL_ERROR
    error = effect.error or turn_error_text(code)
    data = events.agent_error(turn.message_id, processed, code, error, effect.context, now)
    return TurnEnd(turn.turn_id, EventType.AGENT_ERROR, events.with_extra(data, effect.extra))


def _as_failure(effect: m.FinishTurns, code: TurnError) -> m.FinishTurns:
    return replace(
        effect,
        status=TurnStatus.FAILED,
        run_status=RunStatus.FAILED,
        code=code,
        error=turn_error_text(code),
        context=None,
        text=None,
        usage=None,
        extra={},
    )


def _code_of(error: Exception) -> TurnError:
    """Of what keeps a session file from being laid out, or a reply from being stored."""
    if isinstance(error, SnapshotCorrupt):
        return TurnError.SNAPSHOT_CORRUPT
    if isinstance(error, StoreRejected):
        return TurnError.INTERNAL_ERROR
    return TurnError.DISK_FULL if is_disk_full(error) else TurnError.SESSION_FILE_INVALID


def _counted(code: str | None) -> str:
    """Workers may give any code; the series of a metric must not become more and more."""
    return "" if code is None else code if code in TurnError.__members__ else OTHER_CODE


def _recorded(effect: m.Record) -> list[tuple[EventType, Data, Turn]]:
    match effect:
        case asking.RecordAnswer(turn, question_id, answer):
            return [(EventType.QUESTION_ANSWERED, events.question_answered(question_id, answer), turn)]
        case m.RecordCancelStage(turns, stage):
            return [(EventType.CANCEL, events.cancel(stage, turn.message_id), turn) for turn in turns]


def _lost(statement: str) -> m.LeaseLost:
    telemetry.FENCED_WRITES.labels(statement).inc()
    return m.LeaseLost()


def _ids(turns: tuple[Turn | CorruptMarker, ...]) -> tuple[str, ...]:
    return tuple(turn.turn_id for turn in turns)

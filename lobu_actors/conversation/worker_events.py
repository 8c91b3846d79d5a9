"""What a worker's signals mean to its conversation: ready, frames, gone. Pure.

A frame counts only for the run that is live and from the worker that has it; anything else is dropped and counted.
Once a run is finishing, nothing that its worker still says can change how it ends.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError, known_code
from lobu_actors.contract.frames import (
    Ask,
    Complete,
    Delta,
    Ephemeral,
    Fail,
    Frame,
    Heartbeat,
    Log,
    Status,
)
from lobu_actors.contract.text import storable, storable_json
from lobu_actors.conversation.adoption import of_adopted
from lobu_actors.conversation.messages import (
    Dropped,
    Effect,
    Note,
    RemoveWorkspace,
    ShowEphemeral,
    ShowStatus,
    ShowText,
)
from lobu_actors.conversation.outcome import (
    Step,
    cancel_run,
    code_of_exit,
    code_of_start,
    complete_run,
    exit_status_text,
    fail_queued,
    fail_run,
    fail_run_and_worker,
    put_back,
)
from lobu_actors.conversation.questions import ask
from lobu_actors.conversation.state import Moment, Run, RunPhase, State, WorkerPhase
from lobu_actors.conversation.worker_port import Gone, WorkerFrames, WorkerGone, WorkerReady

_TAKES_FRAMES = (RunPhase.LIVE, RunPhase.STOPPING)
_SHOWN_DETAIL = 300
_SHOWN_LEVEL = 20


def worker_ready(state: State, ready: WorkerReady, moment: Moment) -> Step:
    worker = state.worker
    if worker is None or worker.worker_id != ready.worker_id or worker.phase is not WorkerPhase.STARTING:
        return state, [Dropped("stale worker")]
    worker = replace(
        worker,
        phase=WorkerPhase.READY,
        capabilities=ready.capabilities,
        pid=ready.pid,
        started_at=ready.started_at,
    )
    return replace(state, worker=worker), []


def worker_gone(state: State, gone: WorkerGone, moment: Moment) -> Step:
    worker, run = state.worker, state.run
    if worker is None or worker.worker_id != gone.worker_id:
        return state, []
    state = replace(state, worker=None)
    if state.over:
        return state, [RemoveWorkspace()] if state.closing else []
    effects: list[Effect] = [Note("worker gone", {"reason": gone.reason, "status": exit_status_text(gone)})]
    if gone.reason == Gone.STALE and (run is None or run.phase not in _TAKES_FRAMES):
        return state, effects
    if worker.phase is not WorkerPhase.ENDING and gone.reason != Gone.STALE:
        state = replace(state, crashes=(*state.crashes[-state.limits.crash_loop_max :], moment.now))
    context = {"reason": gone.reason, "detail": storable(gone.detail)[:_SHOWN_DETAIL]}
    if run is not None and run.phase is RunPhase.STOPPING:
        state, more = cancel_run(state, run)
    elif run is not None and run.phase is RunPhase.LIVE and gone.reason == Gone.STALE:
        state, more = put_back(state, run, now=moment.now)
    elif run is not None and run.phase is RunPhase.LIVE:
        code, exit_status = code_of_exit(gone), exit_status_text(gone)
        state, more = fail_run(
            state, run, code, now=moment.now, context=context | {"exit": exit_status}, exit_status=exit_status
        )
    elif worker.phase is WorkerPhase.STARTING and state.queue and gone.reason != Gone.SPAWNER_LOST:
        state, more = fail_queued(state, state.queue[:1], code_of_start(gone), context)
    else:
        more = []  # a spawner that is lost is started again, and nobody has seen the messages; its crashes are counted
    return state, effects + more


def worker_frames(state: State, message: WorkerFrames, moment: Moment) -> Step:
    worker = state.worker
    if worker is None or worker.worker_id != message.worker_id:
        return state, [Dropped("stale worker", len(message.frames))]
    effects: list[Effect] = []
    for frame in message.frames:
        state, more = _frame(state, frame, moment.now)
        effects += more
    return state, _joined(effects)


def _frame(state: State, frame: Frame, now: float) -> Step:
    if isinstance(frame, Log):
        return state, [
            Note("worker log", {"severity": storable(frame.level)[:_SHOWN_LEVEL], "length": len(frame.message)})
        ]
    run = state.run
    if isinstance(frame, Heartbeat):
        if run is not None:
            state = replace(state, run=replace(run, heard_at=now))
        return state, []
    if not isinstance(frame, Delta | Status | Ask | Ephemeral | Complete | Fail):
        return state, [Dropped("unexpected frame")]
    if run is None or frame.run_id != run.run_id:
        return state, [Dropped("other run")]
    if run.phase not in _TAKES_FRAMES:
        return state, [Dropped("after terminal")]
    run = replace(run, heard_at=now)
    if run.adopted:
        if (step := of_adopted(replace(state, run=run), run, frame, now)) is not None:
            return step
        run = replace(run, reattaching=False)
    if isinstance(frame, Complete | Fail):
        return _terminal(state, run, frame, now)
    return _progress(state, run, frame, now)


def _terminal(state: State, run: Run, frame: Complete | Fail, now: float) -> Step:
    if run.phase is RunPhase.STOPPING:
        return cancel_run(state, run)
    if isinstance(frame, Complete):
        text = frame.text
        if text is not None and len(text) > state.limits.reply_max_chars:
            return fail_run(state, run, TurnError.REPLY_TOO_LARGE, now=now)
        usage = None if frame.usage is None else storable_json(frame.usage)
        calls = tuple(storable_json(call) for call in frame.tool_calls or () if _is_call(call))
        text = None if text is None else storable(text)
        extra = storable_json(frame.extra)
        return complete_run(state, run, text, usage, calls, frame.processed_message_ids, extra)
    context = {} if frame.context is None else storable_json(frame.context)
    if frame.retryable is not None:
        context["retryable"] = frame.retryable
    error = storable(frame.message) or None
    extra = storable_json(frame.extra)
    return fail_run(state, run, known_code(frame.code), now=now, error=error, context=context, extra=extra)


def _progress(state: State, run: Run, frame: Delta | Status | Ask | Ephemeral, now: float) -> Step:
    if isinstance(frame, Delta):
        # What is sent again may have come before: two supervisors may have asked for it.
        text = frame.text if frame.text_offset is None else frame.text[max(0, run.text_length - frame.text_offset) :]
        length = run.text_length + len(text)
        # Nor does it say that the provider of an adopted run, who had failed, has said anything since.
        provider_code = run.provider_code if frame.text_offset is not None else None
        run = replace(run, text_length=length, progress_at=now, tool=None, provider_code=provider_code)
        if length > state.limits.reply_max_chars:
            return fail_run_and_worker(state, run, TurnError.REPLY_TOO_LARGE, now=now)
        return replace(state, run=run), [ShowText(text)]
    message_id = run.turns[0].message_id
    if isinstance(frame, Status):
        run = _status(run, frame, now)
        return replace(state, run=run), [
            ShowStatus(
                storable(frame.status),
                None if frame.phase is None else storable(frame.phase),
                message_id,
                tool=run.tool,
                extra=storable_json(frame.extra),
            )
        ]
    if isinstance(frame, Ephemeral):
        return replace(state, run=run), [ShowEphemeral(storable(frame.text), message_id, storable_json(frame.extra))]
    return ask(state, run, frame, now)


def _status(run: Run, frame: Status, now: float) -> Run:
    """A status is progress, unless it says that the provider failed, or nothing but that has been said since."""
    if frame.code is not None:
        return replace(run, provider_code=known_code(frame.code), tool=None)
    tool = frame.tool or "tool" if frame.phase == "tool" else None
    if run.provider_code is not None and tool is None:
        return run
    return replace(run, progress_at=now, tool=tool, tool_since=now, provider_code=None)


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and all(isinstance(call.get(name), str) for name in ("id", "name", "arguments"))


def _joined(effects: list[Effect]) -> list[Effect]:
    """Neighbouring pieces of text become one."""
    joined: list[Effect] = []
    for effect in effects:
        last = joined[-1] if joined else None
        if isinstance(effect, ShowText) and isinstance(last, ShowText):
            joined[-1] = ShowText(last.text + effect.text)
        else:
            joined.append(effect)
    return joined

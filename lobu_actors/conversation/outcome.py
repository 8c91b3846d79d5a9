"""How an attempt ends: which terminal event, or another attempt. Pure."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.messages import Effect, FinishTurns, KillWorker, Note, RecordCancelStage, RequeueTurns
from lobu_actors.conversation.state import Run, RunPhase, State, WorkerPhase
from lobu_actors.conversation.worker_port import Gone, WorkerGone
from lobu_actors.store.records import Turn

Step = tuple[State, list[Effect]]

TIMEOUT_EXIT_CODE = 124
NOT_SENT = "NOT_SENT"  # why a turn went back to the queue: its worker was gone before it got it
_TIMEOUTS = frozenset(
    {
        TurnError.SESSION_TIMEOUT,
        TurnError.FIRST_OUTPUT_TIMEOUT,
        TurnError.NO_PROGRESS,
        TurnError.TOOL_TIMEOUT,
        TurnError.TURN_TIMEOUT,
        TurnError.QUESTION_TIMEOUT,
        TurnError.WORKER_UNRESPONSIVE,
    }
)


def finishing(state: State, run: Run) -> State:
    return replace(state, run=replace(run, phase=RunPhase.FINISHING))


def ending(state: State) -> State:
    """The worker was told to end; nothing is given to it any more."""
    if state.worker is None:
        return state
    return replace(state, worker=replace(state.worker, phase=WorkerPhase.ENDING))


def complete_run(
    state: State,
    run: Run,
    text: str | None,
    usage: dict[str, Any] | None,
    tool_calls: tuple[dict[str, Any], ...] = (),
    read: list[str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Step:
    """`read`: the messages that the worker says it read; None: it says nothing, so all count as read.

    The others came while it ended its reply: they are no part of it and go back to the queue. The first message of a
    run always counts, so that none can come back for ever.
    """
    unread = () if read is None else tuple(turn for turn in run.turns[1:] if turn.message_id not in read)
    effect = FinishTurns(
        run.run_id,
        tuple(turn for turn in run.turns if turn not in unread),
        TurnStatus.COMPLETED,
        RunStatus.COMPLETED,
        text=text,
        usage=usage,
        tool_calls=tool_calls,
        extra=extra or {},
        returned=tuple(replace(turn, status=TurnStatus.QUEUED, attempt=run.attempt + 1) for turn in unread),
    )
    # A reply proves that workers here can work: what crashed before is no loop.
    return replace(finishing(state, run), crashes=()), [effect]


def cancel_run(state: State, run: Run) -> Step:
    """The run was stopped because somebody asked for it."""
    effects: list[Effect] = [
        RecordCancelStage(run.turns, "worker-stopped"),
        FinishTurns(run.run_id, run.turns, TurnStatus.CANCELLED, RunStatus.CANCELLED),
    ]
    return finishing(state, run), effects


def cancel_queued(state: State, turns: tuple[Turn, ...]) -> Step:
    """End turns that never ran."""
    state = replace(state, queue=tuple(turn for turn in state.queue if turn not in turns))
    return state, [FinishTurns(None, turns, TurnStatus.CANCELLED, RunStatus.CANCELLED)]


def refuse_queued(state: State) -> Step:
    """End at once what was refused, each as its verdict says: it waits for no run and no worker sees it."""
    refused = tuple(turn for turn in state.queue if turn.verdict is not None)
    if not refused:
        return state, []
    state = replace(state, queue=tuple(turn for turn in state.queue if turn.verdict is None))
    return state, [
        FinishTurns(
            None,
            (turn,),
            TurnStatus.FAILED,
            RunStatus.FAILED,
            code=verdict.code,
            error=verdict.error,
            context=verdict.context,
        )
        for turn in refused
        if (verdict := turn.verdict) is not None
    ]


def fail_queued(state: State, turns: tuple[Turn, ...], code: TurnError, context: dict[str, Any] | None = None) -> Step:
    """Fail turns that wait; none of them has a run."""
    state = replace(state, queue=tuple(turn for turn in state.queue if turn not in turns))
    return state, [
        FinishTurns(
            None, turns, TurnStatus.FAILED, RunStatus.FAILED, code=code, error=turn_error_text(code), context=context
        )
    ]


def fail_run(
    state: State,
    run: Run,
    code: str,
    *,
    now: float,
    error: str | None = None,
    context: dict[str, Any] | None = None,
    exit_status: str | None = None,
    extra: dict[str, Any] | None = None,
) -> Step:
    """End the attempt by the agent's failure policy: another attempt after a backoff, or `agent-error`."""
    rule = {
        TurnError.WORKER_CRASHED: state.failure.crash,
        TurnError.SESSION_TIMEOUT: state.failure.timeout,
    }.get(TurnError(code) if code in TurnError.__members__ else TurnError.WORKER_FAILED, "fail")
    failures = max(turn.failures for turn in run.turns) + 1
    note = Note("attempt failed", {"run_id": run.run_id, "code": code, "failures": failures, "rule": rule})
    if state.failure.may_retry(rule, failures):
        state = replace(finishing(state, run), not_before=now + state.failure.backoff_seconds(failures))
        return state, [note, RequeueTurns(run.run_id, run.turns, failed=True, code=code, exit_status=exit_status)]
    timed_out = code in _TIMEOUTS
    effect = FinishTurns(
        run.run_id,
        run.turns,
        TurnStatus.TIMEOUT if timed_out else TurnStatus.FAILED,
        RunStatus.TIMEOUT if timed_out else RunStatus.FAILED,
        code=code,
        error=error or turn_error_text(code),
        context=context,
        exit_status=exit_status,
        extra=extra or {},
    )
    return finishing(state, run), [note, effect]


def put_back(state: State, run: Run, *, now: float) -> Step:
    """Not a failed attempt, since no worker saw it. A second one in a row is: else workers that die or leave whenever
    they are sent a turn would have it for ever."""
    if any(turn.error_code == NOT_SENT for turn in run.turns):
        return fail_run(state, run, TurnError.WORKER_CRASHED, now=now)
    return finishing(state, run), [RequeueTurns(run.run_id, run.turns, failed=False, code=NOT_SENT)]


def fail_run_and_worker(state: State, run: Run, code: str, *, now: float) -> Step:
    """Of a worker that said more than it may, or nothing in time: it may well go on so, and is ended with the run."""
    state, effects = fail_run(state, run, code, now=now)
    return ending(state), [KillWorker(), *effects]


def code_of_exit(gone: WorkerGone) -> TurnError:
    """The code of a worker that went away in the middle of a run."""
    if gone.reason == Gone.PROTOCOL:
        return TurnError.WORKER_PROTOCOL_ERROR
    if gone.reason == Gone.STALLED:
        return TurnError.WORKER_UNRESPONSIVE
    if gone.reason == Gone.WORKSPACE_FULL:
        return TurnError.WORKSPACE_FULL
    if gone.reason == Gone.NOT_STARTED:
        return TurnError.WORKER_STARTUP_FAILED
    if gone.exit_code == TIMEOUT_EXIT_CODE:
        return TurnError.SESSION_TIMEOUT
    return TurnError.WORKER_CRASHED


def code_of_start(gone: WorkerGone) -> TurnError:
    """The code of a worker that went away before it was ready."""
    by_reason = {Gone.WORKSPACE_FULL: TurnError.WORKSPACE_FULL, Gone.DISK_FULL: TurnError.DISK_FULL}
    return by_reason.get(gone.reason, TurnError.WORKER_STARTUP_FAILED)


def exit_status_text(gone: WorkerGone) -> str:
    if gone.signal is not None:
        return f"signal {gone.signal}"
    return gone.reason if gone.exit_code is None else f"exit {gone.exit_code}"

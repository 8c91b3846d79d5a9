"""Which deadline of a run comes next, and which one has passed. Pure; all times are monotonic seconds.

A heartbeat proves that a process lives, never that a turn progresses: each has a clock of its own. While a person is
asked, only the question's clock runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from lobu_actors.contract.errors import TurnError
from lobu_actors.conversation.policy import Deadlines
from lobu_actors.conversation.state import Run, RunPhase, State, WorkerPhase


def run_deadlines(run: Run, deadlines: Deadlines) -> Iterator[tuple[float, TurnError]]:
    """Every clock that runs now, with the code of its passing."""
    if run.phase is not RunPhase.LIVE:
        return
    if run.reattaching:
        # Nothing else of it is known before it answers.
        yield run.progress_at + deadlines.startup_seconds, TurnError.WORKER_UNRESPONSIVE
        return
    if run.questions:
        yield run.waiting_since + deadlines.question_seconds, TurnError.QUESTION_TIMEOUT
        return
    yield run.started_at + deadlines.turn_seconds, TurnError.TURN_TIMEOUT
    yield run.heard_at + deadlines.heartbeat_seconds, TurnError.WORKER_UNRESPONSIVE
    if run.tool is not None:
        yield run.tool_since + deadlines.tool_seconds, TurnError.TOOL_TIMEOUT
    elif run.progress_at <= run.started_at:
        yield run.started_at + deadlines.first_output_seconds, TurnError.FIRST_OUTPUT_TIMEOUT
    else:
        yield run.progress_at + deadlines.progress_seconds, TurnError.NO_PROGRESS


def passed(run: Run, deadlines: Deadlines, now: float) -> str | None:
    """The code of the clock that ran out first, None while all still run.

    When the model provider had said no, its code tells more than the clock's.
    """
    due = [deadline for deadline in run_deadlines(run, deadlines) if deadline[0] <= now]
    return (run.provider_code or min(due)[1]) if due else None


def next_deadline(state: State) -> float | None:
    """When the actor must look again if nothing else happens; None: never."""
    times: list[float] = []
    run = state.run
    if run is not None:
        times += [at for at, _ in run_deadlines(run, state.deadlines)]
        if run.questions:
            times.append(run.answers_at)
        if run.stop_by is not None:
            times.append(run.stop_by)
        if state.drain_by is not None and run.phase is RunPhase.LIVE:  # what is being stopped has its grace
            times.append(state.drain_by)
    elif state.queue and not _is_told(state):
        times.append(state.not_before)
    return min(times, default=None)


def _is_told(state: State) -> bool:
    """What it waits for comes as a message: an edge's outcome, a worker that starts or ends. Or nothing more begins."""
    worker = state.worker
    return state.draining or state.accepting or (worker is not None and worker.phase is not WorkerPhase.READY)

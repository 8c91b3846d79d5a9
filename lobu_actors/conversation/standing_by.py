"""An actor at rest lets its next run begin with the acceptance of a message: when it may, and what follows. Part of
`decide`.

While an edge commits, the run may live or not, so nothing else begins. Was the worker lost meanwhile, or is the host to
begin nothing any more, then the run goes back to the queue: no worker has seen its message. Is the outcome not known,
then the lease is given up and taken anew, which fences a commit that is still on its way.
"""

from __future__ import annotations

from msgspec.structs import replace

from lobu_actors.conversation import messages as m
from lobu_actors.conversation.crash_loop import in_crash_loop
from lobu_actors.conversation.leaving import lose
from lobu_actors.conversation.outcome import Step, finishing
from lobu_actors.conversation.standby_messages import OpenRun, StandbySettled
from lobu_actors.conversation.state import Moment, Run, RunPhase, State, WorkerPhase

FIRST_ATTEMPT = 1


def stands_by(state: State, now: float) -> bool:
    """Whether a message that came now would be given to the worker at once."""
    return state.run is None and not state.queue and not state.accepting and _could_begin(state, now)


def standby_settled(state: State, settled: StandbySettled, moment: Moment) -> Step:
    state = replace(state, accepting=False)
    if not settled.known:
        return replace(lose(state), renewing=True), [m.KillWorker(), m.Note("standby not known, lease taken anew")]
    if settled.turn is None:
        return state, []
    now, turns = moment.now, (settled.turn,)
    run = Run(settled.run_id, turns, FIRST_ATTEMPT, RunPhase.BEGINNING, started_at=now, heard_at=now, progress_at=now)
    queue = tuple(turn for turn in state.queue if turn.turn_id != settled.turn.turn_id)
    state = replace(state, run=run, queue=queue)
    if _could_begin(state, now):
        return state, [OpenRun(run.run_id, turns, FIRST_ATTEMPT)]
    code = "DRAINED" if state.draining else "NOT_SENT"
    return finishing(state, run), [m.RequeueTurns(run.run_id, turns, failed=False, code=code)]


def _could_begin(state: State, now: float) -> bool:
    leaves = state.over or state.closing or state.draining or state.renewing or state.resetting is not None
    if leaves or not state.has_agent or now < state.not_before or in_crash_loop(state, now):
        return False
    return state.worker is not None and state.worker.phase is WorkerPhase.READY

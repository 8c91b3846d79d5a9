"""The conversation actor's mind: `decide(state, message, moment) -> state, effects`. Pure, so it can be proved on.

Authority: only the holder of the conversation's lease runs this, and every effect that writes is guarded by the lease
in the statement itself. So a wrong decision here can be slow or late; it cannot give a turn two terminal events.

Failure: an effect that finds the lease gone answers `LeaseLost`, and the actor stops writing and kills its worker. An
actor that dies takes nothing with it: its successor is told by `Recovered` what is owed.

Rejected: deciding inside the effects (cannot be tested without a database and processes); one task per run (two owners
of one state).
"""

from __future__ import annotations

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import Cancel, Steer
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation import resetting
from lobu_actors.conversation import session_messages as about
from lobu_actors.conversation.adoption import adopt, can_adopt, run_adopted
from lobu_actors.conversation.adoption_messages import RunAdopted
from lobu_actors.conversation.clocks import passed
from lobu_actors.conversation.corrupt import end_corrupt, readable
from lobu_actors.conversation.crash_loop import in_crash_loop
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest, LeaseReleased
from lobu_actors.conversation.leaving import leave, left, lose
from lobu_actors.conversation.line import came_behind, enqueue, enqueue_queued, interrupted, interrupts, next_turns
from lobu_actors.conversation.marker_messages import MarkersMended
from lobu_actors.conversation.outcome import (
    Step,
    cancel_queued,
    cancel_run,
    ending,
    fail_queued,
    fail_run_and_worker,
    finishing,
    put_back,
    refuse_queued,
)
from lobu_actors.conversation.questions import answered, look
from lobu_actors.conversation.standby_messages import StandbySettled, StandbyTaken
from lobu_actors.conversation.standing_by import standby_settled
from lobu_actors.conversation.state import Moment, Run, RunPhase, State, WorkerPhase, WorkerState
from lobu_actors.conversation.worker_events import worker_frames, worker_gone, worker_ready
from lobu_actors.conversation.worker_port import WorkerFrames, WorkerGone, WorkerReady
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.records import FILES_KEY, Turn

KEPT_RECENT = 32


def decide(state: State, message: m.Message, moment: Moment) -> Step:
    """What follows from `message`. Deterministic; raises nothing."""
    state, effects = _react(state, message, moment)
    if state.over:
        return state, effects
    state, refused = refuse_queued(state)
    state, more = _go_on(state, moment)
    return state, effects + refused + more


def _react(state: State, message: m.Message, moment: Moment) -> Step:
    match message:
        case WorkerFrames():
            return worker_frames(state, message, moment)
        case m.TurnAccepted(turn):
            return _accepted(state, turn, moment)
        case WorkerReady():
            return worker_ready(state, message, moment)
        case StandbySettled():
            return standby_settled(state, message, moment)
        case StandbyTaken():
            return replace(state, accepting=True), []
        case m.RunBegun(run_id):
            return _run_begun(state, run_id, moment)
        case m.TurnsFinished(turn_ids, returned):
            recent = (*state.recent, *turn_ids)[-KEPT_RECENT:]
            return enqueue(replace(_without_run(state, turn_ids), recent=recent), returned), []
        case WorkerGone():
            return worker_gone(state, message, moment)
        case m.WorkerStarting(worker_id):
            return replace(state, worker=WorkerState(worker_id, WorkerPhase.STARTING)), []
        case m.Tick():
            return _tick(state, moment)
        case m.Recovered():
            return _recover(state, message, moment)
        case m.OwedLoaded(owed):
            return _loaded(state, readable(owed), end_corrupt(state, owed), moment)
        case _:
            return _react_rarely(state, message, moment)


def _react_rarely(state: State, message: m.Message, moment: Moment) -> Step:
    match message:
        case m.Sweep():
            return state, [m.LoadOwed()]
        case m.CancelRequest(message_id):
            return _cancel(state, message_id, moment)
        case asking.QuestionAnswered(question_id, answer):
            return answered(state, [(question_id, answer)], moment)
        case asking.AnswersLoaded(answers):
            return answered(state, answers, moment)
        case m.CloseRequest():
            return _close(state)
        case DrainRequest(by):
            return replace(state, draining=True, drain_by=by), []
        case m.BeginRefused():
            return _begin_refused(state, message, moment)
        case RunAdopted():
            return run_adopted(state, message, moment)
        case m.RunJoined(turn):
            return _run_joined(state, turn)
        case m.JoinRefused(turn):
            state = replace(state, run=state.run and replace(state.run, joining=None))
            return state, [m.Dropped("late hint"), m.LoadOwed()]
        case m.SessionUnusable(_, code, detail):
            turns = state.run.turns if state.run else ()
            return fail_queued(replace(state, run=None), turns, code, {"detail": detail})
        case about.SessionReset(turn):
            return resetting.session_reset(state, turn)
        case about.ResetRefused(turn):
            return resetting.reset_refused(state, turn)
        case about.ResetFailed(turn, detail):
            return resetting.reset_failed(state, turn, detail)
        case m.RunRefused(run_id, detail):
            return _run_refused(state, run_id, detail, moment)
        case m.TurnNotSent(run_id):
            return _not_sent(state, run_id, moment)
        case about.PurgeRequest(run_id):
            ours = state.run is not None and state.run.run_id == run_id and state.run.phase is RunPhase.LIVE
            return state, [about.PurgeSnapshots() if ours else m.Reply(None)]
        case about.SnapshotsPurged(number):
            return state, [m.Reply(number)]
        case MarkersMended(owed):
            return enqueue_queued(state, owed), []
        case m.TurnsRequeued(turns):
            # Of a run that was put back nothing is left here, also when its turns' rows are gone.
            if state.run is not None and state.run.phase is RunPhase.FINISHING:
                state = replace(state, run=None)
            return enqueue(state, readable(turns)), end_corrupt(state, turns)
        case m.LeaseLost():
            return lose(state), [m.KillWorker(), m.Note("lease lost")]
        case BeginAnew():
            return replace(state, renewing=True), []
        case LeaseReleased():
            return left(state), []
        case m.ConversationClosed():
            over = replace(ending(state), over=True, renewing=False)  # there is nothing to begin anew
            return over, [m.Reply(True), *([] if state.worker else [m.RemoveWorkspace()])]
    raise AssertionError(f"not a message: {message!r}")


def _go_on(state: State, moment: Moment) -> Step:
    """Begin whatever can begin now; at most one thing, since its result comes back here."""
    if state.run is not None or state.accepting:
        return state, []
    if state.closing:
        return cancel_queued(state, state.queue) if state.queue else (state, [m.CloseConversation()])
    if state.draining or state.renewing:
        return leave(state)
    worker = state.worker
    if not state.queue:
        return state, []
    if resetting.reset_is_next(state):
        return resetting.go_on(state)
    if not state.has_agent:
        return fail_queued(state, state.queue, TurnError.AGENT_DISABLED)
    if in_crash_loop(state, moment.now):
        return fail_queued(state, state.queue, TurnError.WORKER_CRASH_LOOP, {"crashes": len(state.crashes)})
    if moment.now < state.not_before:
        return state, []
    if worker is None:
        return replace(state, worker=WorkerState("", WorkerPhase.STARTING)), [m.StartWorker()]
    if worker.phase is not WorkerPhase.READY:
        return state, []
    return _begin(state, worker, moment)


def _begin(state: State, worker: WorkerState, moment: Moment) -> Step:
    turns = next_turns(state)
    queue = state.queue[len(turns) :]
    attempt = max(turn.attempt for turn in turns)
    run = Run(
        moment.fresh_id,
        turns,
        attempt,
        RunPhase.BEGINNING,
        started_at=moment.now,
        heard_at=moment.now,
        progress_at=moment.now,
    )
    begin = m.BeginRun(run.run_id, turns, attempt, worker.pid, worker.started_at)
    return replace(state, run=run, queue=queue), [begin]


def _run_begun(state: State, run_id: str, moment: Moment) -> Step:
    run = state.run
    if run is None or run.run_id != run_id:
        return state, []
    run = replace(run, phase=RunPhase.LIVE, started_at=moment.now, heard_at=moment.now, progress_at=moment.now)
    return replace(state, run=run), [m.SendTurn(run.run_id, run.turns, run.attempt)]


def _begin_refused(state: State, refused: m.BeginRefused, moment: Moment) -> Step:
    """Late hints are known for what they are from now on, and what they went with begins without them. Were there none,
    then a run that nobody knows of is in the way: it is ended, and what waits begins a little later."""
    run = state.run
    if run is None or run.run_id != refused.run_id:
        return state, []
    queued = {turn.turn_id for turn in readable(refused.owed) if turn.status is TurnStatus.QUEUED}
    late = tuple(turn_id for turn_id in run.turn_ids if turn_id not in queued)
    state = replace(state, run=None, recent=(*state.recent, *late)[-KEPT_RECENT:])
    state = enqueue(state, tuple(turn for turn in run.turns if turn.turn_id in queued))
    if late:
        return state, [m.Dropped("late hint", len(late)), m.Note("late hint", {"run_id": run.run_id})]
    note = m.Note("unknown run ended", {"run_id": run.run_id}, alarm=True)
    state = replace(state, not_before=moment.now + state.failure.backoff_seconds(1))
    return state, [note, m.RequeueTurns(None, (), failed=False, code=TurnError.HOST_LOST)]


def _run_refused(state: State, run_id: str, detail: str, moment: Moment) -> Step:
    """A run that cannot be guarded goes back to the queue; later, so that what is wrong does not spin."""
    run = state.run
    if run is None or run.run_id != run_id:
        return state, []
    failures = max(turn.failures for turn in run.turns) + 1
    state = replace(finishing(state, run), not_before=moment.now + state.failure.backoff_seconds(failures))
    requeue = m.RequeueTurns(run_id or None, run.turns, failed=False, code="RUN_UNGUARDED")
    return state, [m.Note("unguarded run refused", {"run_id": run_id, "detail": detail}), requeue]


def _not_sent(state: State, run_id: str, moment: Moment) -> Step:
    """The worker died before it was sent its turn, which counts towards a crash loop; workers that start slowly and die
    as soon as they are ready are too few for one."""
    run = state.run
    if run is None or run.run_id != run_id:
        return state, []
    state = replace(ending(state), crashes=(*state.crashes[-state.limits.crash_loop_max :], moment.now))
    state, effects = put_back(state, run, now=moment.now)
    return state, [m.KillWorker(), *effects]


def _accepted(state: State, turn: Turn, moment: Moment) -> Step:
    """A new message; what it asks for when something runs (`onBusy`) happens here, the rest by its place in line.

    What is about to run (its worker still starts, or it waits for its next attempt) is interrupted as if it ran: its
    sender cannot tell the two apart. Hints of several edges come in any order, so what came behind an interrupt is not
    interrupted by it, though it runs. Nor is a reset that waits for its worker's end: what follows it is for the new
    session.
    """
    if state.knows(turn.turn_id):
        return state, []
    run = state.run
    if run is None and turn.on_busy is OnBusy.INTERRUPT and turn.verdict is None and not resetting.reset_is_next(state):
        before = tuple(waiting for waiting in next_turns(state) if came_behind(turn, waiting))
        if before:
            state, effects = cancel_queued(state, before)
            return enqueue(state, (turn,)), effects
    if run is not None and run.phase is RunPhase.LIVE and turn.verdict is None:
        if interrupts(turn, run.turns):
            state, effects = _stop_run(state, run, moment)
            return enqueue(state, (turn,)), effects
        if _can_steer(state, turn):
            return replace(state, run=replace(run, joining=turn)), [m.JoinRun(run.run_id, turn)]
    return enqueue(state, (turn,)), []


def _loaded(state: State, owed: tuple[Turn, ...], effects: list[m.Effect], moment: Moment) -> Step:
    """Who interrupts does so also when its hint was lost, or is slower than a sweep."""
    run = state.run
    stops = run is not None and run.phase is RunPhase.LIVE and interrupted(state, owed, run.turns)
    state = enqueue_queued(state, owed)
    if run is None or not stops:
        return state, effects
    state, more = _stop_run(state, run, moment)
    return state, effects + more


def _can_steer(state: State, turn: Turn) -> bool:
    if turn.on_busy is not OnBusy.STEER or resetting.is_reset(turn) or FILES_KEY in turn.payload:
        return False  # files lie in input/ before a run begins, so what brings some waits for a run of its own
    return state.worker is not None and "steer" in state.worker.capabilities


def _run_joined(state: State, turn: Turn) -> Step:
    """The steering message belongs to the run now, and ends with it."""
    run = state.run
    if run is None:
        return state, []
    run = replace(run, turns=(*run.turns, turn), joining=None)
    frame = Steer(run_id=run.run_id, message_id=turn.message_id, content=turn.content)
    return replace(state, run=run), [m.SendFrame(frame)]


def _recover(state: State, recovered: m.Recovered, moment: Moment) -> Step:
    """A predecessor's live run goes on if its worker can; else it is lost: run it again if the policy says so, else end
    it with HOST_LOST. One that was being cancelled ends so, and so does one that somebody interrupted meanwhile."""
    owed, record, worker = recovered.owed, recovered.live_run, recovered.worker
    ran = tuple(turn for turn in readable(owed) if turn.status is TurnStatus.RUNNING)
    cancelled = state.closing or (record is not None and record.cancel_requested)
    cancelled = cancelled or interrupted(state, readable(owed), ran)
    corrupt = end_corrupt(state, owed)
    state = enqueue_queued(state, owed)
    if record is not None and worker is not None and can_adopt(worker) and not cancelled:
        step = adopt(state, record, worker, readable(owed), moment)
        if step is not None:
            return step[0], corrupt + step[1]
    state, effects = _recover_running(replace(state, worker=worker), readable(owed), cancelled)
    if corrupt and not effects:
        # Whatever run the corrupt ones were in: nothing else may be left to end it, and none begins while it is live.
        effects = [m.RequeueTurns(None, (), failed=False, code=TurnError.MARKER_CORRUPT)]
    if worker is not None:
        state, effects = ending(state), [m.KillWorker(), *effects]
    return state, corrupt + effects


def _recover_running(state: State, owed: tuple[Turn, ...], cancelled: bool) -> Step:
    running = tuple(turn for turn in owed if turn.status is TurnStatus.RUNNING)
    if not running:
        return state, []
    code = TurnError.HOST_LOST
    failures = max(turn.failures for turn in running) + 1
    if cancelled:
        return cancel_queued(state, running)
    if state.failure.may_retry(state.failure.host_lost, failures):
        return state, [m.RequeueTurns(None, running, failed=True, code=code)]
    return fail_queued(state, running, code)


def _cancel(state: State, message_id: str | None, moment: Moment) -> Step:
    queued = tuple(turn for turn in state.queue if message_id in (None, turn.message_id))
    run = state.run
    hits_run = run is not None and (message_id is None or message_id in run.message_ids)
    if not queued and not hits_run:
        return state, [m.Reply(CancelResult.NOTHING_TO_CANCEL)]
    effects: list[m.Effect] = []
    if queued:
        state, more = cancel_queued(state, queued)
        effects += more
    if run is not None and hits_run and run.phase is RunPhase.LIVE:
        state, more = _stop_run(state, run, moment)
        effects += more
    return state, [*effects, m.Reply(CancelResult.ACCEPTED)]


def _stop_run(state: State, run: Run, moment: Moment) -> Step:
    """Ask the worker to stop, or end it when it cannot be asked; either way the run ends within the grace, and as
    cancelled even if another supervisor has to end it."""
    grace = state.limits.cancel_grace_seconds
    state = replace(state, run=replace(run, phase=RunPhase.STOPPING, stop_by=moment.now + grace))
    request = m.RequestCancel(run.run_id)
    if state.worker is not None and "cancel" in state.worker.capabilities:
        cancel = Cancel(run_id=run.run_id, reason="cancelled", grace_seconds=grace)
        return state, [m.SendFrame(cancel), request]
    return ending(state), [m.KillWorker(), request]


def _close(state: State) -> Step:
    state = replace(state, closing=True)
    effects: list[m.Effect] = []
    if state.worker is not None:
        state = ending(state)
        effects.append(m.KillWorker())
    if state.run is not None:
        state, more = cancel_run(state, state.run)
        effects += more
    return state, effects


def _tick(state: State, moment: Moment) -> Step:
    run = state.run
    if run is None:
        return state, []
    if run.stop_by is not None and run.stop_by <= moment.now and run.phase is RunPhase.STOPPING:
        state, effects = cancel_run(ending(state), run)
        return state, [m.KillWorker(), *effects]
    if state.drain_by is not None and state.drain_by <= moment.now and run.phase is RunPhase.LIVE:
        state = finishing(ending(state), run)
        return state, [m.KillWorker(), m.RequeueTurns(run.run_id, run.turns, failed=False, code="DRAINED")]
    code = passed(run, state.deadlines, moment.now)
    if code is None:
        return look(state, run, moment)
    return fail_run_and_worker(state, run, code, now=moment.now)


def _without_run(state: State, turn_ids: tuple[str, ...]) -> State:
    """The run is over when one of its turns is: they end, or go back, together."""
    if state.run is not None and set(state.run.turn_ids) & set(turn_ids):
        return replace(state, run=None)
    return state

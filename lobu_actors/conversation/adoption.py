"""A run whose worker outlived its supervisor goes on under the next one: the same attempt, not another. Pure.

What the worker had written when its supervisor died may have been read or not; so what it says of the run counts for
nothing until it answers `reattach`, by a delta that says that its text begins at 0. From there all comes again: the
text, the questions that it still waits for, its end if it came. So no text is lost and none doubled, wherever the two
were cut apart. A worker that cannot say where its text begins is believed from its first delta on.
"""

from __future__ import annotations

from msgspec.structs import replace

from lobu_actors.contract.frames import (
    CANCELLED,
    RUN_UNKNOWN,
    TEXT_OFFSET,
    Answer,
    Ask,
    Complete,
    Delta,
    Fail,
    Frame,
    Reattach,
)
from lobu_actors.contract.states import TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation.adoption_messages import AdoptRun, RunAdopted
from lobu_actors.conversation.outcome import Step, cancel_run, finishing
from lobu_actors.conversation.state import Moment, Question, Run, RunPhase, State, WorkerPhase, WorkerState
from lobu_actors.store.records import FILES_KEY, RunRecord, Turn

REATTACH = "reattach"  # capability


def can_adopt(worker: WorkerState) -> bool:
    return REATTACH in worker.capabilities


def adopt(state: State, record: RunRecord, worker: WorkerState, owed: tuple[Turn, ...], moment: Moment) -> Step | None:
    """Begin to take the run over. None: what is owed is not what runs, so it is a lost attempt like any other."""
    running = {turn.turn_id: turn for turn in owed if turn.status is TurnStatus.RUNNING}
    if set(running) != set(record.turn_ids):
        return None
    run = Run(
        record.run_id,
        tuple(running[turn_id] for turn_id in record.turn_ids),
        record.attempt,
        RunPhase.BEGINNING,
        started_at=moment.now,
        heard_at=moment.now,
        progress_at=moment.now,
        adopted=True,
    )
    return replace(state, run=run, worker=worker), [AdoptRun(run.run_id, run.turns[0].message_id, run.attempt)]


def run_adopted(state: State, message: RunAdopted, moment: Moment) -> Step:
    """It is ours: ask for all of it again."""
    run, worker = state.run, state.worker
    if run is None or run.run_id != message.run_id or worker is None:
        return state, []
    open_ones = tuple(Question(q.question_id, q.worker_question_id) for q in message.questions if not q.told)
    run = replace(
        run,
        phase=RunPhase.LIVE,
        started_at=moment.now - message.age_seconds,
        heard_at=moment.now,
        progress_at=moment.now,
        reattaching=TEXT_OFFSET in worker.capabilities,
        questions=open_ones,
        asked=len(message.questions),
        waiting_since=moment.now,
        provider_code=message.provider_code,
        answers_at=moment.now,  # one may have been answered meanwhile
        told=tuple((q.worker_question_id, q.answer) for q in message.questions if q.told and q.answer is not None),
    )
    note = m.Note("run adopted", {"run_id": run.run_id, "attempt": run.attempt})
    return replace(state, run=run), [note, m.SendFrame(Reattach(run_id=run.run_id, text_offset=0))]


def of_adopted(state: State, run: Run, frame: Frame, now: float) -> Step | None:
    """A frame of a run that an earlier supervisor began; None when it is to be taken like any other's."""
    stopping = run.phase is RunPhase.STOPPING
    if isinstance(frame, Fail) and frame.code == RUN_UNKNOWN and not stopping:
        return _send_it(state, run, now)
    if run.reattaching and not (isinstance(frame, Delta) and frame.text_offset == 0):
        return None if stopping and isinstance(frame, Complete | Fail) else (state, [m.Dropped("before reattach")])
    if isinstance(frame, Fail) and frame.code == CANCELLED:
        return cancel_run(state, run)  # it was the earlier supervisor that had asked it to stop
    return None


def _send_it(state: State, run: Run, now: float) -> Step:
    """The supervisor died between the commit of the run and its sending: nobody has seen the messages.

    So it seems: what says so may answer yet another supervisor, that has sent the turn before it died. A worker
    that has the turn takes it no second time, and everything of it counts from the answer to the `reattach` behind it.
    """
    worker = state.worker
    # Under which names its files lie in input/ is forgotten.
    if worker is not None and TEXT_OFFSET in worker.capabilities and not any(FILES_KEY in t.payload for t in run.turns):
        run = replace(run, reattaching=True, started_at=now, progress_at=now)
        send = m.SendTurn(run.run_id, run.turns, run.attempt)
        return replace(state, run=run), [send, m.SendFrame(Reattach(run_id=run.run_id, text_offset=0))]
    if worker is not None:
        state = replace(state, worker=replace(worker, phase=WorkerPhase.ENDING))
    requeue = m.RequeueTurns(run.run_id, run.turns, failed=False, code="NOT_SENT")
    return finishing(state, run), [m.KillWorker(), requeue]


def asked_again(run: Run, frame: Ask) -> list[m.Effect] | None:
    """What to do about a question that a run asks once more, since it was adopted; None: it is a new one."""
    if not run.adopted:
        return None
    if any(question.worker_question_id == frame.question_id for question in run.questions):
        return []
    for question_id, answer in run.told:
        if question_id == frame.question_id:
            return [m.SendFrame(Answer(run_id=run.run_id, question_id=question_id, answer=answer))]
    return None

"""Beginning a new session: the message `/new`, and the address `reset`, by which the edge sends the same. Pure.

A reset is an accepted turn like any other, so it survives whatever happens between its acceptance and its end, keeps
its place in line, and gets exactly one terminal event; but no worker sees it. What may still write into the old session
file ends first: the edge lets a reset interrupt unless its sender says otherwise, so a live run is cancelled, and a
worker that waits is killed, since its memory is the old session's. The queue behind it stays.

Done twice (its owner was lost between the two statements) it begins one generation more, of an empty session.
"""

from __future__ import annotations

from msgspec.structs import replace

from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.new_session import STARTING_FRESH, begins_session
from lobu_actors.contract.session_file import SessionMessage
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.messages import Dropped, FinishTurns, KillWorker, Note, ShowEphemeral
from lobu_actors.conversation.outcome import Step, ending, fail_queued
from lobu_actors.conversation.session_messages import ResetSession
from lobu_actors.conversation.state import State, WorkerPhase
from lobu_actors.store.records import Turn

MAX_SUMMARY_CHARS = 16_000
MAX_SUMMARY_MESSAGE_CHARS = 2_000


def is_reset(turn: Turn) -> bool:
    return begins_session(turn.content)


def reset_is_next(state: State) -> bool:
    return bool(state.queue) and is_reset(state.queue[0])


def go_on(state: State) -> Step:
    """Nothing runs and a reset is the next in line: end the worker, then begin the new session."""
    if state.resetting is not None:
        return state, []
    if state.worker is not None:
        return (state, []) if state.worker.phase is WorkerPhase.ENDING else (ending(state), [KillWorker()])
    turn = state.queue[0]
    return replace(state, resetting=turn.turn_id), [ResetSession(turn)]


def session_reset(state: State, turn: Turn) -> Step:
    """The new generation is committed: tell it, and end the turn."""
    finish = FinishTurns(None, (turn,), TurnStatus.COMPLETED, RunStatus.COMPLETED, text=STARTING_FRESH)
    return _without(state, turn), [ShowEphemeral(STARTING_FRESH, turn.message_id), finish]


def reset_refused(state: State, turn: Turn) -> Step:
    """The turn was not queued any more (a hint that came late): nothing was touched."""
    return _without(state, turn), [Dropped("late hint"), Note("late hint", {"turn_id": turn.turn_id})]


def reset_failed(state: State, turn: Turn, detail: str) -> Step:
    return fail_queued(_without(state, turn), (turn,), TurnError.SESSION_FILE_INVALID, {"detail": detail})


def summary_of(messages: tuple[SessionMessage, ...]) -> str | None:
    """The newest messages as text, the oldest of them first, within MAX_SUMMARY_CHARS; None when there are none."""
    lines: list[str] = []
    room = MAX_SUMMARY_CHARS
    for message in reversed(messages):
        text = message.content.strip()
        if not text:
            continue
        shown = text if len(text) <= MAX_SUMMARY_MESSAGE_CHARS else text[:MAX_SUMMARY_MESSAGE_CHARS] + " […]"
        line = f"{message.role}: {shown}"
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    return "\n".join(reversed(lines)) or None


def _without(state: State, turn: Turn) -> State:
    queue = tuple(other for other in state.queue if other.turn_id != turn.turn_id)
    return replace(state, queue=queue, resetting=None)

"""How a conversation's actor gives its lease back: its host drains, or its agent is another now. Part of `decide`."""

from __future__ import annotations

from msgspec.structs import replace

from lobu_actors.conversation import messages as m
from lobu_actors.conversation.drain_messages import ReleaseLease
from lobu_actors.conversation.outcome import Step, ending
from lobu_actors.conversation.state import State, WorkerPhase


def leave(state: State) -> Step:
    """Nothing runs; what is queued is the next holder's."""
    worker = state.worker
    release = ReleaseLease(owes=bool(state.queue))
    is_ending = worker is None or worker.phase is WorkerPhase.ENDING
    stop: list[m.Effect] = [] if is_ending else [m.ShutdownWorker(state.limits.cancel_grace_seconds)]
    if state.renewing and not state.draining and worker is not None:
        # Here, unlike in a drain, the next one may begin in this workspace: its worker must be gone before.
        return ending(state), stop
    return ending(state) if stop else state, [*stop, release]


def lose(state: State) -> State:
    """The lease is not ours any more."""
    return replace(ending(state), run=None, queue=(), over=True)


def left(state: State) -> State:
    """The lease was given back."""
    return replace(lose(state), renewing=state.renewing and bool(state.queue))

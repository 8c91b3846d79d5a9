"""By when each running conversation of this host will have been looked at by its actor. Kept in memory, written to the
markers by the supervisor in batches: an owner that is alive and does nothing is found out by its broken promise.

A promise is the actor's next deadline and a slack: a healthy actor acts at the deadline, so only a stuck one passes it.
"""

from __future__ import annotations

import attrs

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.state import RunPhase, State

SLACK_SECONDS = 15.0


@attrs.frozen
class Promise:
    run_id: str
    turn_ids: tuple[str, ...]
    until: float  # trio clock


class Promises:
    def __init__(self) -> None:
        self.made: dict[ConversationRef, Promise] = {}

    def note(self, state: State) -> None:
        """After each message that an actor has handled."""
        run = state.run
        at = next_deadline(state) if run is not None and run.phase is not RunPhase.BEGINNING else None
        if run is None or at is None:
            self.made.pop(state.ref, None)
        else:
            self.made[state.ref] = Promise(run.run_id, run.turn_ids, at + SLACK_SECONDS)

    def drop(self, ref: ConversationRef) -> None:
        self.made.pop(ref, None)

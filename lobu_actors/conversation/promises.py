"""By when each running conversation of this host will have been looked at by its actor. Kept in memory, written to the
markers by the supervisor in batches: an owner that is alive and does nothing is found out by its broken promise.

A promise is the actor's next deadline and a slack: a healthy actor acts at the deadline, so only a stuck one passes it.

A turn that waits for its run has no deadline to promise. There an actor is found out by how long it has been at one
message, which is known in its process only, and is enough: a process in which nothing happens loses its lease.

What takes many statements (files have many pieces) may take long where each of them does, so it tells of each step. So
does a long statement that moves: of each piece of it.
"""

from __future__ import annotations

import msgspec
import trio
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.state import RunPhase, State

SLACK_SECONDS = 15.0
MESSAGE_SECONDS = 30.0  # more than a piece of a file takes, or a statement that does not move and is asked again


class Promise(msgspec.Struct, frozen=True):
    run_id: str
    turn_ids: tuple[str, ...]
    until: float  # by the clock of runs' deadlines
    provider_code: str | None = None


class Promises:
    def __init__(self) -> None:
        self.made: dict[ConversationRef, Promise] = {}
        self.running: dict[ConversationRef, State] = {}  # of actors that have a run, the oldest run first, to look at
        self.at_message: dict[ConversationRef, float] = {}  # since when, of actors that handle a message now

    def begin(self, ref: ConversationRef) -> None:
        """An actor begins to handle a message."""
        self.at_message[ref] = trio.current_time()

    def goes_on(self, ref: ConversationRef, now: float) -> None:
        """What it does with that message has come a step further. `now`: of the clock of its run's deadlines."""
        if ref in self.at_message:
            self.at_message[ref] = trio.current_time()
        promise = self.made.get(ref)
        if promise is not None and promise.until < now + MESSAGE_SECONDS:
            self.made[ref] = replace(promise, until=now + MESSAGE_SECONDS)

    def end(self, ref: ConversationRef) -> None:
        """It has handled it, or failed."""
        self.at_message.pop(ref, None)

    def seems_stuck(self, ref: ConversationRef) -> bool:
        """Whether its actor has been at one step for so long that it may never end. Or the store is away."""
        since = self.at_message.get(ref)
        return since is not None and trio.current_time() - since >= MESSAGE_SECONDS

    def note(self, state: State) -> None:
        """After each message that an actor has handled."""
        run = state.run
        if run is None:
            self.running.pop(state.ref, None)
        else:
            self.running[state.ref] = state
        at = next_deadline(state) if run is not None and run.phase is not RunPhase.BEGINNING else None
        if run is None or at is None:
            self.made.pop(state.ref, None)
        else:
            self.made[state.ref] = Promise(run.run_id, run.turn_ids, at + SLACK_SECONDS, run.provider_code)

    def drop(self, ref: ConversationRef) -> None:
        self.made.pop(ref, None)
        self.running.pop(ref, None)

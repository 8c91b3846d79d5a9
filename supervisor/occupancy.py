"""How much this host has to do, and how much it has room for, as placing and the other hosts want to know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.environment import Busy
from supervisor.workers.service import WorkerProcesses

WAITED_SECONDS = 1.0  # for a worker's place, until another host may be better: two turns of a quick agent


class Occupancy(Protocol):
    def runs(self) -> int:
        """How many are under way."""
        ...

    def room(self) -> int:
        """How many further workers could be had at once; those at rest end for one that is asked for."""
        ...

    def waiting(self) -> list[ConversationRef]:
        """The conversations that have waited for a worker's place for a while, in their order."""
        ...

    def place_again(self, ref: ConversationRef, /) -> None:
        """Have this conversation, which runs nothing, begin in a new activation, here or elsewhere."""
        ...


@attrs.frozen
class ThisHost:
    """Implements `Occupancy`."""

    busy: Busy
    workers: WorkerProcesses
    place_again: Callable[[ConversationRef], None]

    def runs(self) -> int:
        return len(self.busy)

    def room(self) -> int:
        return self.workers.room(self.busy.has)

    def waiting(self) -> list[ConversationRef]:
        return self.workers.waiting(WAITED_SECONDS)

"""An actor at rest whose worker waits, as edges of its process see it: its next run may begin with the next message.

An edge takes the standby, commits the message and the run in one statement that is guarded by the actor's lease, and
settles: begun with it, not begun, or not known. From the taking to the settling the actor begins nothing by itself. A
standby is taken once. Whoever takes one settles it, whatever happens; the actor may be gone by then.

A client sends its next message as soon as it sees an end, which is before the actor has tidied up behind that end. So a
taker lets an actor of which a standby is expected have its turn first: a few schedule points, in place of a statement.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import attrs
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.records import Turn
from lobu_actors.store.standby_records import NextRun

EXPECTED_POINTS = 4  # schedule points that an actor may need to tidy up, of which two are its readers'


@attrs.define(eq=False)
class Standby:
    """`on_settled` tells the actor to look; it says whether the actor is still there to take it up."""

    run: NextRun
    on_settled: Callable[[Standby], bool]
    taken: bool = False
    settled: bool = False
    known: bool = True  # False: whether the run was begun
    turn: Turn | None = None  # that it was begun with

    def begun(self, turn: Turn) -> bool:
        """The run is committed. False: its actor has ended, so it has to be told as of any accepted turn."""
        self.turn = turn
        return self._settle()

    def not_begun(self, *, known: bool) -> None:
        """Nothing was begun with it; or, not `known`, something may have been."""
        self.known = known
        self._settle()

    def _settle(self) -> bool:
        self.settled = True
        return self.on_settled(self)


class Standbys:
    """Those of one process that nobody has taken."""

    def __init__(self) -> None:
        self._waiting: dict[ConversationRef, Standby] = {}
        self._expected: set[ConversationRef] = set()

    def expect(self, ref: ConversationRef) -> None:
        """There is one in a moment, or `withdraw` says that there is none."""
        self._expected.add(ref)

    def put(self, standby: Standby) -> None:
        self._expected.discard(standby.run.lease.ref)
        self._waiting[standby.run.lease.ref] = standby

    async def take(self, ref: ConversationRef) -> Standby | None:
        for _ in range(EXPECTED_POINTS):
            if ref not in self._expected:
                break
            await trio.lowlevel.checkpoint()
        standby = self._waiting.pop(ref, None)
        if standby is not None:
            standby.taken = True
        return standby

    def longest_at_rest(self, refs: Container[ConversationRef]) -> ConversationRef | None:
        """Of these, the one that was put before all others."""
        return next((ref for ref in self._waiting if ref in refs), None)

    def withdraw(self, ref: ConversationRef) -> None:
        self._expected.discard(ref)
        self._waiting.pop(ref, None)

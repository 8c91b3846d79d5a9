"""The one section of the edge that must not be torn: commit a message, then hint the owner, in commit order.

Where the owner's actor is in this process and has a worker that waits, the same statement begins the message's run.

It is shielded, so a client that hangs up in the middle changes nothing, and has a deadline, so nothing waits forever.
A commit whose outcome is unknown is asked for again by its key until the deadline. Must not know HTTP.
"""

from __future__ import annotations

import attrs
import trio

from edge import metrics
from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.new_session import begins_session
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.standby import Standby
from lobu_actors.runtime.scheduling import others_first
from lobu_actors.store.errors import StoreError, StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.protocol import ConversationStore
from lobu_actors.store.records import Accepted, NewTurn, Refused

_FIRST_BACKOFF_SECONDS = 0.05
_MAX_BACKOFF_SECONDS = 1.0


@attrs.define
class _Lane:
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    users: int = 0


class Acceptance:
    """Accepts messages. Those of one conversation go one at a time, so that hints come in the order of commits."""

    def __init__(self, store: ConversationStore, gateway: Gateway, settings: EdgeSettings) -> None:
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._lanes: dict[ConversationRef, _Lane] = {}

    async def accept(self, turn: NewTurn) -> Accepted | Refused:
        """Once this has begun to write, a cancelled caller does not stop it; it takes at most `accept_seconds` twice.

        Raises StoreUnavailable: nothing is known to be accepted; the same message_id may be sent again.
        """
        lane = self._lanes.setdefault(turn.ref, _Lane())
        lane.users += 1
        try:
            await self._enter(lane.lock)
            try:
                return await self._accept(turn)
            finally:
                lane.lock.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[turn.ref]

    async def _accept(self, turn: NewTurn) -> Accepted | Refused:
        outcome: Accepted | Refused | None = None
        standby = await self._gateway.stand_by(turn.ref) if _is_plain(turn) else None
        try:
            with trio.move_on_after(self._settings.accept_seconds, shield=True):
                outcome = await self._commit(turn, standby)
                if isinstance(outcome, Accepted) and outcome.turn.status not in TERMINAL_TURN_STATUSES:
                    await self._tell(outcome, standby)
        finally:
            if standby is not None and not standby.settled:
                standby.not_begun(known=outcome is not None)
        if outcome is None:
            raise StoreOutcomeUnknown("the store did not answer in time")
        return outcome

    async def _tell(self, accepted: Accepted, standby: Standby | None) -> None:
        if standby is None or not accepted.begun or not standby.begun(accepted.turn):
            await self._gateway.accepted(accepted.turn)
        else:
            await others_first()  # the worker gets its turn before the sender gets its receipt

    async def _commit(self, turn: NewTurn, standby: Standby | None) -> Accepted | Refused:
        backoff = _FIRST_BACKOFF_SECONDS
        run = None if standby is None else standby.run
        asked_again = False
        while True:
            try:
                return await self._store.accept_turn(turn, max_owed=self._settings.max_owed_turns, run=run)
            except StoreOutcomeUnknown:
                asked_again = True
                metrics.messages("asked-again").inc()
                await trio.sleep(backoff)
                backoff = min(backoff * 2, _MAX_BACKOFF_SECONDS)
            except StoreError:
                if standby is not None and not asked_again:
                    standby.not_begun(known=True)
                raise

    async def _enter(self, lock: trio.Lock) -> None:
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(self._settings.accept_seconds) as scope:
                await lock.acquire()
            if scope.cancelled_caught:
                raise StoreUnavailable("too many messages of this conversation are waiting to be stored") from None


def _is_plain(turn: NewTurn) -> bool:
    """Whether a worker gets it as it is, without anything that has to be done before."""
    return turn.verdict is None and not turn.file_ids and not begins_session(turn.content)

"""How a singleton's message becomes an accepted turn: as one that came over HTTP does, without HTTP.

The caller's message_id is the key that makes any number of askings one turn, whoever asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from msgspec.structs import replace

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.new_session import begins_session
from lobu_actors.contract.states import TERMINAL_TURN_STATUSES
from lobu_actors.gateway.protocol import CancelResult, Gateway
from lobu_actors.store.protocol import ConversationStore
from lobu_actors.store.records import Accepted, NewTurn, Refused, Verdict
from supervisor.singletons.asking import ask

# Input guardrails: why a message of this user is kept from every worker.
Judge = Callable[[NewTurn, str], Awaitable[Verdict | None]]

CLOSING_TRIES = 5  # a conversation that is being closed can be opened again when it is closed
CANCEL_TRIES = 5
TRY_AGAIN_SECONDS = 1.0


class Inbox:
    def __init__(self, store: ConversationStore, gateway: Gateway, judge: Judge, *, max_owed_turns: int) -> None:
        self._store = store
        self._gateway = gateway
        self._judge = judge
        self._max_owed_turns = max_owed_turns

    async def take_in(self, turn: NewTurn, user_id: str) -> Accepted | Refused:
        """Open the conversation if it is not, and accept. Waits for a store that is away. Raises StoreRejected."""
        if not begins_session(turn.content):
            turn = replace(turn, verdict=await ask("judge", partial(self._judge, turn, user_id)))
        outcome: Accepted | Refused = Refused("closed")
        for number in range(CLOSING_TRIES):
            if number:
                await trio.sleep(TRY_AGAIN_SECONDS)
            await ask("open_conversation", partial(self._store.open_conversation, turn.ref, user_id))
            outcome = await ask("accept_turn", partial(self._store.accept_turn, turn, max_owed=self._max_owed_turns))
            if not isinstance(outcome, Refused) or outcome.reason not in ("closed", "missing"):
                break
        if isinstance(outcome, Accepted) and outcome.turn.status not in TERMINAL_TURN_STATUSES:
            await self._gateway.accepted(outcome.turn)
        return outcome

    async def cancel(self, ref: ConversationRef) -> CancelResult:
        """Cancel all that the conversation owes."""
        find = partial(self._store.find_conversation, ref.organization_id, ref.conversation_id)
        if await ask("find_conversation", find) is None:
            return CancelResult.NOTHING_TO_CANCEL
        for number in range(CANCEL_TRIES):
            if number:
                await trio.sleep(TRY_AGAIN_SECONDS)
            result = await self._gateway.cancel(ref, None)
            if result is not CancelResult.UNREACHABLE:
                return result
        return CancelResult.UNREACHABLE

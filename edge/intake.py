"""From a checked message to an accepted turn: guardrails, a change of provider, the commit. Every route's one way in.

Raises Refusal for what is not accepted. Must not know how a request said it or what is answered.
"""

from __future__ import annotations

import structlog
import trio
from msgspec.structs import replace

from edge import metrics
from edge.errors import Refusal, conversation_not_found, store_unavailable
from edge.provider_change import follow_provider
from edge.request import opening
from edge.services import Services
from edge.tracing import with_context
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.new_session import begins_session, provider_of
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Conversation, NewTurn, Refused, Turn

_log = structlog.get_logger(__name__)

_QUEUE_RETRY_SECONDS = 5


def default_on_busy(content: str) -> OnBusy:
    """Who wants a new session does not want to wait for what the old one is still saying."""
    return OnBusy.INTERRUPT if begins_session(content) else OnBusy.ENQUEUE


async def take_in(
    services: Services, conversation: Conversation, turn: NewTurn, file_ids: tuple[str, ...] = ()
) -> Turn:
    """The turn, once it is durable; of a message that was accepted before, as it is now."""
    try:
        if not begins_session(turn.content):  # which no worker sees
            turn = replace(turn, verdict=await services.guardrails.verdict(turn, conversation.user_id))
        if turn.verdict is None:
            if file_ids:
                turn = replace(turn, file_ids=file_ids)
            if named := provider_of(_model(turn)):
                turn = await follow_provider(services, conversation, turn, named)
    except StoreUnavailable as error:
        raise _store_away(turn, error) from error
    return await accept(services, conversation, turn)


async def accept(services: Services, conversation: Conversation, turn: NewTurn) -> Turn:
    """The commit alone, of a message that no worker sees or that was judged already."""
    began = trio.current_time()
    turn = with_context(turn, opening().headers)
    try:
        outcome = await services.acceptance.accept(turn)
    except StoreUnavailable as error:
        raise _store_away(turn, error) from error
    if isinstance(outcome, Refused):
        metrics.messages(outcome.reason).inc()
        raise _refusal(services, conversation, outcome)
    metrics.messages("accepted" if outcome.created else "repeated").inc()
    took = trio.current_time() - began
    metrics.ACCEPT_SECONDS.observe(took)
    if outcome.created:
        services.streams.traces.accepted(outcome.turn, took)
    return outcome.turn


def _store_away(turn: NewTurn, error: StoreUnavailable) -> Refusal:
    """With the id that it got, the message can be sent again without being taken in twice."""
    _log.warning("store unavailable", error=str(error))
    metrics.messages("store-unavailable").inc()
    return store_unavailable({"messageId": turn.message_id})


def _model(turn: NewTurn) -> str | None:
    model = turn.payload.get("model")
    return model if isinstance(model, str) else None


def _refusal(services: Services, conversation: Conversation, refused: Refused) -> Refusal:
    if refused.reason == "closed":
        return Refusal(409, ApiError.CONVERSATION_CLOSED, "This conversation was ended; open it again.")
    if refused.reason == "busy":
        return Refusal(409, ApiError.CONVERSATION_BUSY, "Another message is being worked on, and onBusy is reject.")
    if refused.reason == "full":
        limit = services.settings.max_owed_turns
        sentence = f"This conversation has {limit} unanswered messages already; wait for a reply."
        return Refusal(429, ApiError.QUEUE_FULL, sentence, retry_after_seconds=_QUEUE_RETRY_SECONDS)
    services.tenancy.forget(conversation)
    return conversation_not_found()

"""Take a message in. The answer says that it is durable, nothing more; the reply comes over the event stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio
from quart import Blueprint, Response

from edge import metrics
from edge.errors import Refusal, conversation_not_found, invalid_field, store_unavailable
from edge.links import conversation_url, query_value
from edge.provider_change import follow_provider
from edge.request import message_id_of, read_object
from edge.services import Services
from edge.uploads import is_upload
from edge.wire import Json, json_response
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.new_session import begins_session, provider_of
from lobu_actors.contract.states import OnBusy
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Conversation, NewTurn, Refused, Turn

ADDRESS = "/api/v1/agents/<key>/messages"
_OWN_FIELDS = frozenset({"content", "message", "messageId", "onBusy"})
_QUEUE_RETRY_SECONDS = 5


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("messages", __name__)

    @blueprint.post(ADDRESS)
    async def send_message(key: str) -> Response:
        # What never changes about a conversation is remembered; that it is there and open, the write itself checks.
        _, conversation = await services.conversation(key, fresh=False)
        if is_upload():
            async with services.uploads.receive(conversation.ref) as (body, file_ids):
                return json_response(await take_in(services, conversation, body, file_ids))
        return json_response(await take_in(services, conversation, await read_object(services.settings)))

    return blueprint


async def take_in(services: Services, conversation: Conversation, body: Json, file_ids: tuple[str, ...] = ()) -> Json:
    """The receipt of the message in `body`, once it is durable. Raises Refusal."""
    turn = _new_turn(conversation.ref, body)
    with _known_by_its_id(turn):
        if not begins_session(turn.content):  # which no worker sees
            turn = attrs.evolve(turn, verdict=await services.guardrails.verdict(turn, conversation.user_id))
        if turn.verdict is None:
            turn = attrs.evolve(turn, file_ids=file_ids)
            if named := provider_of(_model(turn)):
                turn = await follow_provider(services, conversation, turn, named)
    return await accept_message(services, conversation, turn)


async def accept_message(services: Services, conversation: Conversation, turn: NewTurn) -> Json:
    """The receipt, once the message is durable. Raises Refusal."""
    began = trio.current_time()
    with _known_by_its_id(turn):
        outcome = await services.acceptance.accept(turn)
    if isinstance(outcome, Refused):
        metrics.messages(outcome.reason).inc()
        raise _refusal(services, conversation, outcome)
    metrics.messages("accepted" if outcome.created else "repeated").inc()
    metrics.ACCEPT_SECONDS.observe(trio.current_time() - began)
    return _receipt(services, outcome.turn)


@contextmanager
def _known_by_its_id(turn: NewTurn) -> Iterator[None]:
    """A store that is away: with the id that it got, the message can be sent again without being taken in twice."""
    try:
        yield
    except StoreUnavailable:
        metrics.messages("store-unavailable").inc()
        raise store_unavailable({"messageId": turn.message_id}) from None


def _new_turn(ref: ConversationRef, body: Json) -> NewTurn:
    content = body.get("content")
    if content is None:
        content = body.get("message")
    if not isinstance(content, str) or not content.strip():
        raise invalid_field("content", "`content` must be a text that is not empty.")
    return NewTurn(
        ref=ref,
        turn_id=new_id(),
        message_id=message_id_of(body.get("messageId")) or new_id(),
        content=content,
        on_busy=_on_busy(body.get("onBusy"), content),
        payload={name: value for name, value in body.items() if name not in _OWN_FIELDS},
    )


def _model(turn: NewTurn) -> str | None:
    model = turn.payload.get("model")
    return model if isinstance(model, str) else None


def _on_busy(value: object, content: str) -> OnBusy:
    if value is None:
        # Who wants a new session does not want to wait for what the old one is still saying.
        return OnBusy.INTERRUPT if begins_session(content) else OnBusy.ENQUEUE
    if not isinstance(value, str) or value not in OnBusy.__members__.values():
        raise invalid_field("onBusy", f"`onBusy` must be one of {', '.join(OnBusy)}.")
    return OnBusy(value)


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


def _receipt(services: Services, turn: Turn) -> Json:
    key = turn.ref.conversation_id
    tail = f"/events?messageId={query_value(turn.message_id)}&since={turn.first_seq}"
    return {
        "success": True,
        "messageId": turn.message_id,
        "agentId": key,
        "turnId": turn.turn_id,
        "queued": True,
        "position": turn.position,
        "eventsUrl": conversation_url(services.settings, key, tail),
    }

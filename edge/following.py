"""Beginning to follow a conversation, by whatever kind of connection: from where, which message, and how many at once.

What the subscription holds is let go with the current request, whatever way that ends.
"""

from __future__ import annotations

from edge.errors import Refusal
from edge.request import message_id_of, opening
from edge.services import Services
from edge.sse import Encoding
from edge.subscription import Subscription
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.events import Cursor, parse_cursor
from lobu_actors.store.records import Conversation, Turn


def starting_point() -> Cursor | None:
    """Last-Event-ID says where the reader really is, so it wins over the address that it first used."""
    text = opening().headers.get("Last-Event-ID") or opening().args.get("since")
    if not text:
        return None
    try:
        return parse_cursor(text)
    except ValueError as error:
        raise Refusal(400, ApiError.INVALID_CURSOR, f"This is no place in the stream: {error}.") from None


async def followed_turn(services: Services, conversation: Conversation) -> Turn | None:
    """The turn of `?messageId=`, which the stream ends with."""
    message_id = message_id_of(opening().args.get("messageId"))
    if message_id is None:
        return None
    turn = await services.store.find_turn(conversation.ref, message_id)
    if turn is None:
        raise Refusal(404, ApiError.MESSAGE_NOT_FOUND, "This conversation has no such message.")
    return turn


def subscribe(
    services: Services, conversation: Conversation, start: Cursor | None, turn: Turn | None, encoding: Encoding
) -> Subscription:
    """Raises Refusal 429 when there is no room for another stream."""
    held = services.held()
    place = held.enter_context(services.streams.place(conversation.ref))
    feed = held.enter_context(services.gateway.open_feed(conversation.ref))
    place.feed = feed
    return Subscription(
        conversation,
        services.store,
        feed,
        services.settings,
        start=start,
        turn=turn,
        draining=lambda: place.over or services.gateway.draining,
        encoding=encoding,
        deliveries=services.streams.deliveries,
    )

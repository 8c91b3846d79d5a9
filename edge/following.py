"""Beginning to follow a conversation, by whatever kind of connection: from where, which message, and how many at once.

What the subscription holds is let go with the current request, whatever way that ends.
"""

from __future__ import annotations

import msgspec

from edge import sse
from edge.errors import Refusal
from edge.request import message_id_of, opening
from edge.services import Services
from edge.settings import EdgeSettings
from edge.sse import Encoding
from edge.streams import Place
from edge.subscription import Subscription
from lobu_actors.contract import events
from lobu_actors.contract.errors import ApiError
from lobu_actors.contract.events import Cursor, EventType, parse_cursor
from lobu_actors.gateway.feed import Feed, Outgoing
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


class Wanted(msgspec.Struct, frozen=True):
    """`start` None: from `turn`'s beginning, else from the log's."""

    conversation: Conversation
    start: Cursor | None
    turn: Turn | None


async def wanted_of(services: Services, key: str) -> Wanted | None:
    """What the current request for an event stream wants to read, if it may; None when there is nothing more to read.

    Raises Refusal; StoreUnavailable.
    """
    _, conversation = await services.conversation(key, by_ticket=True)
    start = starting_point()
    turn = await followed_turn(services, conversation)
    if opening().method != "HEAD" and _is_over(conversation, start):
        return None
    return Wanted(conversation, start, turn)


def _is_over(conversation: Conversation, start: Cursor | None) -> bool:
    """A browser that comes back behind `closed`: 204 is how to tell its EventSource to stay away."""
    reconnected = bool(opening().headers.get("Last-Event-ID"))
    return reconnected and conversation.closed and start is not None and start.seq >= conversation.last_seq


def away(settings: EdgeSettings) -> bytes:
    """All of a stream whose store is away: a 503 would close a browser's EventSource for good; told to come back, it
    does."""
    return sse.encode_event(Outgoing(EventType.DRAIN, events.drain(settings.drain_again_ms), None))


def subscribe(
    services: Services, conversation: Conversation, start: Cursor | None, turn: Turn | None, encoding: Encoding
) -> Subscription:
    """Raises Refusal 429 when there is no room for another stream."""
    held = services.held()
    place = held.enter_context(services.streams.place(conversation.ref))
    feed = held.enter_context(services.gateway.open_feed(conversation.ref))
    return subscription_on(services, place, feed, Wanted(conversation, start, turn), encoding)


def subscription_on(services: Services, place: Place, feed: Feed, wanted: Wanted, encoding: Encoding) -> Subscription:
    place.feed = feed
    return Subscription(
        wanted.conversation,
        services.store,
        feed,
        services.settings,
        start=wanted.start,
        turn=wanted.turn,
        draining=lambda: place.over or services.gateway.draining,
        encoding=encoding,
        deliveries=services.streams.deliveries,
    )

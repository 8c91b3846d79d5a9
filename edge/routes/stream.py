"""The event stream's route: who may, and when there is nothing more to read. What is sent is the subscription's."""

from __future__ import annotations

from typing import Protocol

from quart import Blueprint, Response, request

from edge import sse
from edge.following import followed_turn, starting_point, subscribe
from edge.services import Services
from edge.stream_response import PulledBody, stream_response
from edge.wire import no_content
from lobu_actors.contract.events import Cursor, EventType, drain
from lobu_actors.gateway.feed import Outgoing
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Conversation


class Chunks(Protocol):
    async def next_chunk(self) -> bytes | None:
        """Called when the connection has room for more; None: that was all."""
        ...


class StreamBody(PulledBody):
    """A subscription as a response body."""

    def __init__(self, subscription: Chunks) -> None:
        self._subscription = subscription

    async def __anext__(self) -> bytes:
        chunk = await self._subscription.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


def routes(services: Services) -> Blueprint:
    blueprint = Blueprint("stream", __name__)

    @blueprint.get("/api/v1/agents/<key>/events")
    async def events(key: str) -> Response:
        try:
            return await follow(key)
        except StoreUnavailable:
            # A 503 would close a browser's EventSource for good; told to come back, it does.
            later = Outgoing(EventType.DRAIN, drain(services.settings.drain_again_ms), None)
            return stream_response(sse.encode_event(later))

    async def follow(key: str) -> Response:
        _, conversation = await services.conversation(key, by_ticket=True)
        start = starting_point()
        turn = await followed_turn(services, conversation)
        if request.method == "HEAD":
            return stream_response(b"")
        if _is_over(conversation, start):
            return no_content()
        return stream_response(StreamBody(subscribe(services, conversation, start, turn, sse.ENCODING)))

    return blueprint


def _is_over(conversation: Conversation, start: Cursor | None) -> bool:
    """A browser that comes back behind `closed`: 204 is how to tell its EventSource to stay away."""
    reconnected = bool(request.headers.get("Last-Event-ID"))
    return reconnected and conversation.closed and start is not None and start.seq >= conversation.last_seq

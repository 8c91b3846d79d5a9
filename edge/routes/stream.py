"""The event stream's route, for the requests that `edge.direct` leaves to Quart."""

from __future__ import annotations

from typing import Protocol

from quart import Blueprint, Response, request

from edge import sse
from edge.direct_stream import ADDRESS
from edge.following import away, subscribe, wanted_of
from edge.responses import no_content
from edge.services import Services
from edge.stream_response import PulledBody, stream_response
from lobu_actors.store.errors import StoreUnavailable


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

    @blueprint.get(ADDRESS)
    async def events(key: str) -> Response:
        try:
            wanted = await wanted_of(services, key)
        except StoreUnavailable:
            return stream_response(away(services.settings))
        if wanted is None:
            return no_content()
        if request.method == "HEAD":
            return stream_response(b"")
        return stream_response(
            StreamBody(subscribe(services, wanted.conversation, wanted.start, wanted.turn, sse.ENCODING))
        )

    return blueprint

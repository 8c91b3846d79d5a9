"""An event stream answered at its connection (see `edge.direct`).

A stream stands still for nearly all of its time, and what it is made of stands with it: through Quart and Hypercorn
that is five tasks, three nurseries, a channel, a parser, a request, a response and two contexts. Here it is the
connection's own task and one that waits for the reader's leaving. Who may read, from where, and what is sent is decided
by the same functions as there; a test holds the answers of both against each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edge import metrics, sse
from edge.errors import Refusal, refusal_of
from edge.following import Wanted, away, subscription_on, wanted_of
from edge.plain_response import PlainResponse, plain_refusal, raw_headers
from edge.request import PlainRequest, answered
from edge.services import Services
from edge.subscription import Subscription
from lobu_actors.store.errors import StoreUnavailable

ADDRESS = "/api/v1/agents/<key>/events"
HEADERS = raw_headers({"Content-Type": sse.CONTENT_TYPE, **sse.HEADERS})


class StreamExchange:
    """One request for a stream."""

    __slots__ = ("_key", "_request", "_services")

    def __init__(self, services: Services, key: str, request: PlainRequest) -> None:
        self._services = services
        self._key = key
        self._request: PlainRequest | None = request

    async def answer(self, stream: Callable[[Subscription], Awaitable[None]]) -> PlainResponse | None:
        """None: there is something to read, and `stream` has sent it, under HEADERS."""
        wanted = await self._opened()
        if isinstance(wanted, PlainResponse):
            metrics.requests(ADDRESS, wanted.status).inc()
            return wanted
        streams, gateway, ref = self._services.streams, self._services.gateway, wanted.conversation.ref
        try:
            place = streams.place(ref)
        except Refusal as refusal:
            metrics.requests(ADDRESS, refusal.status).inc()
            return plain_refusal(refusal)
        with place, gateway.open_feed(ref) as feed:
            metrics.requests(ADDRESS, 200).inc()
            await stream(subscription_on(self._services, place, feed, wanted, sse.ENCODING))
        return None

    async def _opened(self) -> Wanted | PlainResponse:
        """What is to be read, if anything is. Nothing else of the request is kept while it is read."""
        request, self._request = self._request, None
        token = answered.set(request)
        try:
            return await wanted_of(self._services, self._key) or PlainResponse(204, [])
        except StoreUnavailable:
            return PlainResponse(200, HEADERS, away(self._services.settings))
        except Exception as error:
            return plain_refusal(refusal_of(error))
        finally:
            answered.reset(token)

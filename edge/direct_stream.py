"""An event stream answered at the connection's protocol, as the busiest request is (`edge.direct`).

A stream stands still for nearly all of its time, and what it is made of stands with it: through Quart and Hypercorn's
adapter to it that is three tasks, two nurseries, a channel, a request, a response and two contexts. Here it is one task
with the subscription. Who may read, from where, and what is sent is decided by the same functions as there; a test
holds the answers of both against each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
import trio
from hypercorn.protocol.events import Body, EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID

from edge import metrics, sse
from edge.errors import Refusal, refusal_of
from edge.following import Wanted, away, subscription_on, wanted_of
from edge.request import PlainRequest, answered
from edge.services import Services
from edge.subscription import StreamBroken, Subscription
from edge.wire import JSON_HEADERS, encode, raw_headers
from lobu_actors.store.errors import StoreUnavailable

ADDRESS = "/api/v1/agents/<key>/events"
_log = structlog.get_logger(__name__)
_HEADERS = raw_headers([("Content-Type", sse.CONTENT_TYPE), *sse.HEADERS.items()])

Send = Callable[[Event], Awaitable[None]]
Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class StreamExchange:
    """One request for a stream. `handle` hears what comes of it, `spawn` runs its answer, `send` takes its parts."""

    __slots__ = ("_key", "_over", "_request", "_scope", "_send", "_services", "_spawn")

    def __init__(self, services: Services, key: str, request: PlainRequest, send: Send, spawn: Spawn) -> None:
        self._services = services
        self._key = key
        self._request: PlainRequest | None = request
        self._send = send
        self._spawn = spawn
        self._scope = trio.CancelScope()
        self._over = False

    async def handle(self, event: Event) -> None:
        if isinstance(event, EndBody):
            self._spawn(self._run)
        elif isinstance(event, StreamClosed) and not self._over:
            self._scope.cancel()

    async def _run(self) -> None:
        with self._scope:
            await self._answer()
            self._over = True
            await self._send(StreamClosed(stream_id=STREAM_ID))

    async def _answer(self) -> None:
        wanted = await self._opened()
        if wanted is None:
            return
        streams, gateway, ref = self._services.streams, self._services.gateway, wanted.conversation.ref
        try:
            place = streams.place(ref)
        except Refusal as refusal:
            await self._refuse(refusal)
            return
        with place, gateway.open_feed(ref) as feed:
            metrics.requests(ADDRESS, 200).inc()
            await self._stream(subscription_on(self._services, place, feed, wanted, sse.ENCODING))

    async def _opened(self) -> Wanted | None:
        """What is to be read; None when there is nothing, which has been answered. Nothing else of the request is kept
        while it is read."""
        request, self._request = self._request, None
        token = answered.set(request)
        try:
            wanted = await wanted_of(self._services, self._key)
        except StoreUnavailable:
            metrics.requests(ADDRESS, 200).inc()
            content = away(self._services.settings)
            await self._whole(200, [*_HEADERS, (b"content-length", b"%d" % len(content))], content)
            return None
        except Exception as error:
            await self._refuse(error)
            return None
        finally:
            answered.reset(token)
        if wanted is None:
            metrics.requests(ADDRESS, 204).inc()
            await self._whole(204, [], b"")
        return wanted

    async def _stream(self, subscription: Subscription) -> None:
        await self._send(Response(stream_id=STREAM_ID, headers=_HEADERS, status_code=200))
        try:
            while (chunk := await subscription.next_chunk()) is not None:
                await self._send(Body(stream_id=STREAM_ID, data=chunk))
        except StreamBroken as broken:
            _log.warning("stream broken off", reason=str(broken))
            return  # without its end, which would read as a finished reply
        await self._send(EndBody(stream_id=STREAM_ID))

    async def _refuse(self, error: Exception) -> None:
        refusal = refusal_of(error)
        metrics.requests(ADDRESS, refusal.status).inc()
        content = encode(refusal.body())
        fields = {**JSON_HEADERS, "Content-Length": str(len(content)), **refusal.headers}
        await self._whole(refusal.status, raw_headers(fields.items()), content)

    async def _whole(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        await self._send(Response(stream_id=STREAM_ID, headers=headers, status_code=status))
        if content:
            await self._send(Body(stream_id=STREAM_ID, data=content))
        await self._send(EndBody(stream_id=STREAM_ID))

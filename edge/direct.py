"""The busiest request, a message as JSON with a Bearer credential, answered without the web framework around it.

Quart makes a context, looks the route up and has a task watch for the client's hanging up: 0.4 ms of CPU, and of no use
here, since what has begun to be stored is stored whatever the client does. These are the same steps by the same
functions; a test holds the answers of both against each other. Whatever is out of the ordinary (another method, a
cookie, a body without a length, an upload) goes to Quart, by the request's head alone.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from werkzeug.datastructures import Headers
from werkzeug.sansio.request import Request

from edge import metrics
from edge.errors import Refusal, internal_failure, store_away
from edge.links import ALIAS_PREFIX
from edge.request import parse_object, standing_in
from edge.routes.messages import ADDRESS, take_in
from edge.services import Services
from edge.wire import JSON_HEADERS, Json, encode
from lobu_actors.contract.errors import ApiError
from lobu_actors.store.errors import StoreUnavailable

_PATH = re.compile(rf"(?:{re.escape(ALIAS_PREFIX)})?{re.escape(ADDRESS).replace('<key>', '([^/]+)')}")
_NOT_DIRECT = frozenset({b"transfer-encoding", b"cookie", b"expect", b"content-encoding"})
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in JSON_HEADERS.items()]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Direct:
    """Wraps an ASGI app: answers what it knows, and passes the rest on."""

    def __init__(self, app: Any, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = self._key_of(scope)
        if key is None:
            await self._app(scope, receive, send)
            return
        status, body, headers = await self._answer(scope, key, receive)
        metrics.requests(ADDRESS, status).inc()
        content = encode(body)
        length = (b"content-length", b"%d" % len(content))
        await send({"type": "http.response.start", "status": status, "headers": [*_HEADERS, length, *headers]})
        await send({"type": "http.response.body", "body": content})

    def _key_of(self, scope: Scope) -> str | None:
        """The conversation that the request is for; None when it is Quart's."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        found = _PATH.fullmatch(scope["path"])
        if found is None:
            return None
        headers = dict(scope["headers"])
        if len(headers) != len(scope["headers"]) or not _NOT_DIRECT.isdisjoint(headers):
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > self._services.settings.max_message_bytes:
            return None
        is_plain = headers.get(b"content-type", b"").lower() in _JSON_TYPES and b"authorization" in headers
        return found[1] if is_plain else None

    async def _answer(self, scope: Scope, key: str, receive: Receive) -> tuple[int, Json, list[tuple[bytes, bytes]]]:
        settings, body = self._services.settings, _Body(receive)
        try:
            with standing_in(_request(scope)):
                _, conversation = await self._services.conversation(key, fresh=False)
                message = parse_object(await body.read(settings.body_seconds), settings)
                return 200, await take_in(self._services, conversation, message), []
        except Refusal as error:
            refusal = error
        except StoreUnavailable as error:
            refusal = store_away(error)
        except Exception as error:
            refusal = internal_failure(error)
        await body.discard(settings.linger_seconds)
        headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
        return refusal.status, refusal.body(), headers


class _Body:
    """Of the length that the request's head says, which the protocol sees to."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def read(self, seconds: float) -> bytes:
        """Raises Refusal 408 when it is not there in time."""
        parts: list[bytes] = []
        with trio.move_on_after(seconds):
            while not self._ended:
                parts.append(await self._next())
            return b"".join(parts)
        raise Refusal(408, ApiError.BODY_TIMEOUT, "The request's body did not arrive in time.")

    async def discard(self, seconds: float) -> None:
        """To close a connection that its peer still sends on would reset it, and the peer would not see the answer."""
        with trio.move_on_after(seconds):
            while not self._ended:
                await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        self._ended = not message.get("more_body", False)  # or the client has hung up
        return bytes(message.get("body", b""))


def _request(scope: Scope) -> Request:
    headers = Headers([(name.decode("latin1"), value.decode("latin1")) for name, value in scope["headers"]])
    return Request("POST", scope["scheme"], None, "", scope["path"], scope["query_string"], headers, None)

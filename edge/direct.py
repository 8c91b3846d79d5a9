"""The busiest request, a message as JSON with a Bearer credential, answered at the connection's protocol.

Quart makes a context, looks the route up and has a task watch for the client's hanging up, Hypercorn has a queue and a
task for what passes between itself and an app: half a millisecond of CPU, and of no use here, since what has begun to
be stored is stored whatever the client does. These are the same steps by the same functions; a test holds the answers
of both against each other. Whatever is out of the ordinary (another method, a cookie, a body without a length, an
upload) goes to Quart, by the request's head alone.

Mostly the whole request is there in one read, and is answered by `whole`, without h11 too.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

import attrs
import trio
from hypercorn.protocol.events import Body, EndBody, Event, StreamClosed

from edge import direct_stream, metrics
from edge.direct_stream import Send, Spawn, StreamExchange
from edge.errors import Refusal, refusal_of
from edge.links import ALIAS_PREFIX
from edge.messages import ADDRESS, take_in
from edge.request import PlainHeaders, PlainRequest, answered, parse_object
from edge.services import Services
from edge.whole_request import read_whole
from edge.wire import JSON_HEADERS, Json, encode, raw_headers
from lobu_actors.contract.errors import ApiError


def _pattern(address: str, query: bytes = b"") -> re.Pattern[bytes]:
    return re.compile(rb"(?:%b)?%b" % (ALIAS_PREFIX.encode(), address.replace("<key>", "([^/?%]+)").encode()) + query)


_MESSAGES = _pattern(ADDRESS)
_EVENTS = _pattern(direct_stream.ADDRESS, rb"(?:\?([^#]*))?")
_NOT_DIRECT = frozenset({b"transfer-encoding", b"cookie", b"expect", b"content-encoding"})
_NO_STREAM = frozenset({b"transfer-encoding", b"expect"})
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
_HEADERS = raw_headers(JSON_HEADERS.items())

RawHeaders = list[tuple[bytes, bytes]]
Respond = Callable[[int, RawHeaders, bytes], Awaitable[None]]


@attrs.frozen
class Direct:
    """Knows which requests are answered here. `services`: those of now, since settings may be read again."""

    _services: Callable[[], Services]

    def whole(self, data: bytes, max_head_bytes: int, respond: Respond) -> Exchange | None:
        """The exchange, which has its body, when `data` is exactly one request for here. None: it is h11's to say."""
        if not data.startswith(b"POST "):
            return None
        request = read_whole(data, max_head_bytes)
        if request is None:
            return None
        exchange = self.take(b"POST", request.target, request.headers, respond)
        if exchange is not None:
            exchange.fill(request.body)
        return exchange

    def stream(self, method: bytes, target: bytes, raw: RawHeaders, send: Send, spawn: Spawn) -> StreamExchange | None:
        """None: the request is for no event stream, or Quart's. See `StreamExchange`."""
        found = _EVENTS.fullmatch(target) if method == b"GET" else None
        if found is None:
            return None
        headers = dict(raw)
        has_body = headers.get(b"content-length", b"0") != b"0"
        if len(headers) != len(raw) or has_body or not _NO_STREAM.isdisjoint(headers):
            return None
        path = target.partition(b"?")[0].decode("ascii")
        args = dict(reversed(parse_qsl((found[2] or b"").decode("latin1"), keep_blank_values=True)))  # the first counts
        cookies = _cookies(headers[b"cookie"]) if b"cookie" in headers else {}
        plain = PlainRequest("GET", "http", path, PlainHeaders(headers), args, cookies)
        return StreamExchange(self._services(), found[1].decode(), plain, send, spawn)

    def take(self, method: bytes, target: bytes, raw: RawHeaders, respond: Respond) -> Exchange | None:
        """None: the request is no message, or Quart's. `respond` sends the whole answer."""
        found = _MESSAGES.fullmatch(target) if method == b"POST" else None
        if found is None:
            return None
        headers = dict(raw)
        if len(headers) != len(raw) or not _NOT_DIRECT.isdisjoint(headers):
            return None
        services = self._services()
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > services.settings.max_message_bytes:
            return None
        if headers.get(b"content-type", b"").lower() not in _JSON_TYPES or b"authorization" not in headers:
            return None
        plain = PlainRequest("POST", "http", target.decode("ascii"), PlainHeaders(headers))
        return Exchange(services, found[1].decode(), plain, respond)


def _cookies(header: bytes) -> Mapping[str, str]:
    from werkzeug.http import parse_cookie

    return parse_cookie(header.decode("latin1"))


class Exchange:
    """One request and its answer. `handle` hears what comes of it, and answers it when it is whole; unless somebody has
    claimed it before that, to `answer` it in a task of its own, which bounds the wait for the rest."""

    def __init__(self, services: Services, key: str, request: PlainRequest, respond: Respond) -> None:
        self._services = services
        self._key = key
        self._request = request
        self._respond = respond
        self._parts: list[bytes] = []  # as many bytes as the head says, which the protocol sees to
        self._claimed = False
        self._ended = False
        self._gone = False
        self._over = trio.Event()

    def fill(self, body: bytes) -> None:
        """All of it at once, for who then calls `answer`."""
        self._parts.append(body)
        self._claimed = self._ended = True

    async def handle(self, event: Event) -> None:
        if isinstance(event, Body):
            self._parts.append(bytes(event.data))
        elif isinstance(event, (EndBody, StreamClosed)):
            self._ended = True
            self._gone = self._gone or isinstance(event, StreamClosed)
            self._over.set()
            if not self._gone and self.claim():
                await self.answer()

    def claim(self) -> bool:
        """False: somebody else answers it."""
        claimed, self._claimed = self._claimed, True
        return not claimed

    async def answer(self) -> None:
        token = answered.set(self._request)
        try:
            status, body, headers = await self._answer()
        finally:
            answered.reset(token)
        metrics.requests(ADDRESS, status).inc()
        if not self._gone:
            content = encode(body)
            await self._respond(status, [*_HEADERS, (b"content-length", b"%d" % len(content)), *headers], content)

    async def _answer(self) -> tuple[int, Json, RawHeaders]:
        settings = self._services.settings
        try:
            _, conversation = await self._services.conversation(self._key, fresh=False)
            if not await self._is_whole(settings.body_seconds):
                raise Refusal(408, ApiError.BODY_TIMEOUT, "The request's body did not arrive in time.")
            message = parse_object(b"".join(self._parts), settings)
            return 200, await take_in(self._services, conversation, message), []
        except Exception as error:
            refusal = refusal_of(error)
        # To close a connection that its peer still sends on would reset it, and the peer would not see the answer.
        await self._is_whole(settings.linger_seconds)
        return refusal.status, refusal.body(), raw_headers(refusal.headers.items())

    async def _is_whole(self, seconds: float) -> bool:
        """Whether the body is there, or the client gone, in time. Mostly it came with the head."""
        if not self._ended:
            with trio.move_on_after(seconds):
                await self._over.wait()
        return self._ended

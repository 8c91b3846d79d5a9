"""Which requests are answered at their connection: messages as JSON with a Bearer credential, and event streams.

Quart makes a context, looks the route up and has a task watch for the client's hanging up, Hypercorn has a queue and a
task for what passes between itself and an app: half a millisecond of CPU, and of no use here, since what has begun to
be stored is stored whatever the client does. These are the same steps by the same functions; a test holds the answers
of both against each other. Whatever is out of the ordinary (another method, a cookie with a message, a body without a
length, an upload) goes to Quart, by the request's head alone. Must not know how a connection is read and written.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

import attrs

from edge import direct_stream, metrics
from edge.direct_stream import StreamExchange
from edge.errors import Refusal, refusal_of
from edge.links import ALIAS_PREFIX
from edge.messages import ADDRESS, take_in
from edge.plain_response import PlainResponse, plain_json, plain_refusal
from edge.request import PlainHeaders, PlainRequest, answered, parse_object
from edge.request_head import RequestHead
from edge.services import Services
from lobu_actors.contract.errors import ApiError

Body = Callable[[], Awaitable[bytes | None]]  # reads all of it; None: it did not come in time

_NOT_VISIBLE = rb"\x00-\x20\x7f-\xff"


def _pattern(address: str, query: bytes = b"") -> bytes:
    path = address.encode().replace(b"<key>", rb"([^/?%%%b]+)" % _NOT_VISIBLE)
    return rb"(?:%b)?%b%b" % (ALIAS_PREFIX.encode(), path, query)


_MESSAGES = _pattern(ADDRESS)
_EVENTS = _pattern(direct_stream.ADDRESS, rb"(?:\?([^#%b]*))?" % _NOT_VISIBLE)
# Groups: the key of a message's conversation; or that of a stream's, and its query.
_FIRST_LINE = re.compile(rb"(?:POST %b|GET %b) HTTP/1\.[01]\r\n" % (_MESSAGES, _EVENTS))
_COOKIE = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+=[!#-+\--:<-\[\]-~]*"
_COOKIES = re.compile(rb"%b(?:; *%b)*" % (_COOKIE, _COOKIE))
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})


@attrs.frozen
class Direct:
    """`services`: those of now, since settings may be read again."""

    _services: Callable[[], Services]

    def begun(self, data: bytes) -> re.Match[bytes] | None:
        """The first line of `data`, if it is that of what may be a request for here."""
        return _FIRST_LINE.match(data)

    def exchange(self, begun: re.Match[bytes], head: RequestHead) -> MessageExchange | StreamExchange | None:
        """`begun` is the first line of `head`. None: it is Quart's to answer."""
        headers = dict(head.headers)
        if len(headers) != len(head.headers) or b"expect" in headers:
            return None
        key, streamed, query = begun.groups()
        if key is not None:
            return self._message(key.decode(), head, headers)
        return self._stream(streamed.decode(), query or b"", head, headers) if head.length == 0 else None

    def _message(self, key: str, head: RequestHead, headers: Mapping[bytes, bytes]) -> MessageExchange | None:
        services = self._services()
        if b"content-length" not in headers or head.length > services.settings.max_message_bytes:
            return None
        if b"cookie" in headers or b"authorization" not in headers or b"content-encoding" in headers:
            return None
        if headers.get(b"content-type", b"").lower() not in _JSON_TYPES:
            return None
        request = PlainRequest("POST", "http", head.target.decode("ascii"), PlainHeaders(headers))
        return MessageExchange(services, key, request)

    def _stream(
        self, key: str, query: bytes, head: RequestHead, headers: Mapping[bytes, bytes]
    ) -> StreamExchange | None:
        path = head.target.partition(b"?")[0].decode("ascii")
        args = plain_query(query)
        cookies = plain_cookies(headers.get(b"cookie", b""))
        if args is None or cookies is None:
            return None
        request = PlainRequest("GET", "http", path, PlainHeaders(headers), args, cookies)
        return StreamExchange(self._services(), key, request)


def plain_query(query: bytes) -> Mapping[str, str] | None:
    """Of a query in ASCII. None: it stands for what is not UTF-8, and is Quart's to read."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        return None
    return dict(reversed(pairs))  # the first counts


def plain_cookies(header: bytes) -> Mapping[str, str] | None:
    """Of a header in which all is as RFC 6265 has it, nothing quoted; None: it is Quart's to read.

    Werkzeug must not be loaded for it here: another thread may be loading it, and its modules need each other.
    """
    if not header:
        return {}
    if _COOKIES.fullmatch(header) is None:
        return None
    pairs = [pair.strip().partition("=") for pair in header.decode("ascii").split(";")]
    return {name: value for name, _, value in reversed(pairs)}  # the first counts


class MessageExchange:
    """A message that is sent, and the answer to its sender."""

    def __init__(self, services: Services, key: str, request: PlainRequest) -> None:
        self._services = services
        self._key = key
        self._request = request

    async def answer(self, body: Body) -> PlainResponse:
        """Raises what `body` does, which is asked for by who may send it alone."""
        token = answered.set(self._request)
        try:
            response = await self._answer(body)
        finally:
            answered.reset(token)
        metrics.requests(ADDRESS, response.status).inc()
        return response

    async def _answer(self, body: Body) -> PlainResponse:
        services = self._services
        try:
            _, conversation = await services.conversation(self._key, fresh=False)
        except Exception as error:
            return plain_refusal(refusal_of(error))
        content = await body()
        try:
            if content is None:
                raise Refusal(408, ApiError.BODY_TIMEOUT, "The request's body did not arrive in time.")
            return plain_json(200, await take_in(services, conversation, parse_object(content, services.settings)))
        except Exception as error:
            return plain_refusal(refusal_of(error))

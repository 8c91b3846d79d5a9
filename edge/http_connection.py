"""What is said on one connection. Messages and event streams are read, answered and written here (`edge.direct`); what
is anything else is handed over to Hypercorn's protocol as it came, as long as it takes.

So nearly all of the traffic passes h11, Hypercorn and Quart by, and a client that was cut off by a restart is answered
before those are loaded (`edge.application`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from edge.connection import Connection, Gone
from edge.direct import Direct, MessageExchange
from edge.direct_stream import HEADERS, StreamExchange
from edge.plain_response import LAST_CHUNK, PlainResponse, chunk, stream_head
from edge.request_head import END_OF_HEAD, RequestHead, read_head
from edge.settings import EdgeSettings
from edge.subscription import StreamBroken, Subscription

if TYPE_CHECKING:
    from edge.protocols import EdgeProtocol, Protocols

_log = structlog.get_logger(__name__)


class Shared(msgspec.Struct, frozen=True):
    """What the connections of one server have in common. `protocols` waits until they are loaded."""

    direct: Direct
    settings: EdgeSettings
    ending: trio.Event
    protocols: Callable[[], Awaitable[Protocols]]


class _Body:
    """A message's. What of it did not come with the head is read when it is asked for: none is held for a stranger."""

    def __init__(self, connection: Connection, data: bytes, length: int, settings: EdgeSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._length = length
        self._last = data  # that came
        self._is_late = False
        self.missing = length - len(data)

    @property
    def behind(self) -> bytes:
        """What came after it."""
        return self._last[self.missing :] if self.missing < 0 else b""

    async def read(self) -> bytes | None:
        """All of it; None when it does not come in time. Raises Gone."""
        data = self._last
        if self.missing > 0:
            parts = [data]
            with trio.move_on_after(self._settings.body_seconds):
                while self.missing > 0:
                    parts.append(await self._receive())
            if self.missing > 0:
                self._is_late = True
                return None
            data = b"".join(parts)
        return data[: self._length]

    async def skip(self) -> None:
        """What nobody asked for, as long as a refusal may be kept back for it. Raises Gone."""
        if not self._is_late:
            with trio.move_on_after(self._settings.linger_seconds):
                while self.missing > 0:
                    await self._receive()

    async def _receive(self) -> bytes:
        self._last = await self._connection.receive()
        if not self._last:
            raise Gone
        self.missing -= len(self._last)
        return self._last


class HttpConnection:
    """`run` is its whole life."""

    def __init__(self, connection: Connection, shared: Shared) -> None:
        self._connection = connection
        self._shared = shared
        self._requests = 0  # that were answered here
        self._over = False  # nothing more is answered

    async def run(self) -> None:
        """Until either side has ended it and what was asked is answered. Raises what the app raises."""
        foreign = b""
        with suppress(Gone):
            with self._connection.reading():
                foreign = await self._directly()
            if foreign:
                await self._by_hypercorn(foreign)

    # --- what is for here

    async def _directly(self) -> bytes:
        """Answer what is for here, until the first that is not, which is returned as it came; b"" at the end. Raises
        Gone."""
        self._connection.clock(idle=True)
        while not self._over and (data := await self._connection.receive()):
            if foreign := await self._take(data):
                return foreign
        return b""

    async def _take(self, data: bytes) -> bytes:
        """Answer the requests in `data`. Returns what is not for here, as it came. Raises Gone."""
        direct = self._shared.direct
        while data and not self._over:
            if (begun := direct.begun(data)) is None:
                if not data.startswith(b"\r\n") or data.startswith(END_OF_HEAD):
                    return data
                data = data[2:]  # the empty line that some clients send behind a body; RFC 9112, 2.2
                continue
            data, length = await self._with_head(data)
            head = read_head(data[:length])
            exchange = direct.exchange(begun, head) if head is not None else None
            if head is None or exchange is None:
                return data
            self._connection.clock(idle=False)
            self._requests += 1
            data = await self._answer(exchange, head, data[length:])
            self._connection.clock(idle=True)
        return b""

    async def _with_head(self, data: bytes) -> tuple[bytes, int]:
        """`data` with the rest of its head, and how long that is; 0 when it is too long, or does not come."""
        max_bytes = self._shared.settings.max_header_bytes
        while (end := data.find(END_OF_HEAD, 0, max_bytes)) < 0:
            more = await self._connection.receive() if len(data) < max_bytes else b""
            if not more:
                return data, 0
            data += more
        return data, end + len(END_OF_HEAD)

    async def _answer(self, exchange: MessageExchange | StreamExchange, head: RequestHead, data: bytes) -> bytes:
        """Returns what came behind the request."""
        if isinstance(exchange, StreamExchange):
            response = await exchange.answer(partial(self._stream, chunked=head.version == "1.1"))
            if response is None:
                self._over = True
                return b""
            await self._respond(response, head.goes_on)
            return data
        body = _Body(self._connection, data, head.length, self._shared.settings)
        response = await exchange.answer(body.read)
        if body.missing > 0:
            await body.skip()
        await self._respond(response, head.goes_on and body.missing <= 0)
        if body.missing > 0:
            await self._linger()
        return body.behind

    async def _respond(self, response: PlainResponse, goes_on: bool) -> None:
        shared = self._shared
        if self._requests >= shared.settings.keep_alive_max_requests or shared.ending.is_set():
            goes_on = False
        self._over = not goes_on or response.ends_connection
        await self._connection.send(response.encode(goes_on=goes_on))

    async def _linger(self) -> None:
        """To close a connection that its peer still sends on would reset it, and the peer would not see the answer."""
        self._connection.end_writing()
        with trio.move_on_after(self._shared.settings.linger_seconds):
            while await self._connection.receive():
                pass

    async def _stream(self, subscription: Subscription, *, chunked: bool) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_reader_leaves, nursery.cancel_scope)
            await self._write(subscription, chunked)
            nursery.cancel_scope.cancel()

    async def _until_reader_leaves(self, stream: trio.CancelScope) -> None:
        with suppress(Gone):
            while await self._connection.receive():
                pass  # the connection ends with the stream: nothing that comes is a request
        stream.cancel()

    async def _write(self, subscription: Subscription, chunked: bool) -> None:
        try:
            before = stream_head(HEADERS, chunked=chunked)
            while (data := await subscription.next_chunk()) is not None:
                await self._connection.send(before + (chunk(data) if chunked else data))
                before = b""
            await self._connection.send(before + (LAST_CHUNK if chunked else b""))
        except Gone:
            pass
        except StreamBroken as broken:
            # Without its end, which would read as a finished reply.
            _log.warning("stream broken off", reason=str(broken))
            if not chunked:
                self._connection.reset()

    # --- what is Hypercorn's

    async def _by_hypercorn(self, data: bytes) -> None:
        protocols = await self._shared.protocols()
        addresses = self._connection.addresses()
        async with trio.open_nursery() as nursery:
            protocol = protocols.on(self._connection, addresses, nursery)
            await protocol.initiate()
            with suppress(Gone), self._connection.reading():
                await self._pass_on(protocol, data)
            await protocol.end()

    async def _pass_on(self, protocol: EdgeProtocol, data: bytes) -> None:
        """All that comes, but for requests for here that come between two of its own. Raises Gone."""
        while not self._over:
            if data:
                await protocol.receive(data)
            data = await self._connection.receive()
            if not data:
                await protocol.receive(data)
                return
            if protocol.is_between_requests():
                data = await self._take(data)

"""One connection of the runner to an edge: made with the worker's key, read with a bound on silence, closed.

Owns the difference between what passes by and what does not: a wrong key stays wrong, a server that is away comes back.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from lobu_actors.contract import worker_link as link
from lobu_actors.gateway.link.connecting import CannotConnect, Stream, open_stream

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 20.0  # signs of life come every 5 s
CLOSE_SECONDS = 0.5
_TIMES_THAT_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Away(Exception):
    """The connection could not be made, or ended. It may be made again."""


class Refused(Exception):
    """To come again with the same is no use; the message is a sentence."""


class Forgotten(Exception):
    """The host does not know the worker (any more)."""


@attrs.frozen
class Address:
    """`url` is the gateway's, as http(s) or ws(s); `key` the worker's."""

    url: str
    key: str = attrs.field(repr=False)

    @property
    def websocket_url(self) -> str:
        parts = urlsplit(self.url)
        return parts._replace(scheme={"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)).geturl()

    @property
    def path(self) -> str:
        return urlsplit(self.url).path.rstrip("/") + link.PATH


class Connection:
    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    async def send(self, text: str) -> None:
        """Raises Away, Refused, Forgotten."""
        try:
            await self._websocket.send_message(text)
        except ConnectionClosed as closed:
            raise _ended(closed) from None

    async def receive(self, silence_seconds: float = SILENCE_SECONDS) -> str:
        """Raises Away, Refused, Forgotten."""
        message: str | bytes | None = None
        try:
            with trio.move_on_after(silence_seconds):
                message = await self._websocket.get_message()
        except ConnectionClosed as closed:
            raise _ended(closed) from None
        if message is None:
            raise Away(f"nothing was heard for {silence_seconds:g} s")
        return message if isinstance(message, str) else message.decode("utf-8", "replace")


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Connection]:
    """Raises Away, Refused."""
    stream = None
    try:
        with trio.move_on_after(CONNECT_SECONDS):
            stream, host = await open_stream(address.websocket_url)
    except CannotConnect as error:
        if error.unfit:
            raise Refused(f"{address.url} is no address of a gateway; use one like https://host:8787.") from None
        raise Away(str(error)) from None
    if stream is None:
        raise Away("it did not answer in time")
    try:
        watched = _Watched(stream)
        async with trio.open_nursery() as nursery:
            headers = [(b"Authorization", b"Bearer " + address.key.encode())]
            with trio.move_on_after(CONNECT_SECONDS) as opening:
                nursery.start_soon(_cancel_when, watched.ended, opening)
                websocket = await wrap_client_stream(
                    nursery,
                    watched,  # type: ignore[arg-type]  # a stream is all that it needs
                    host,
                    address.path,
                    extra_headers=headers,
                    max_message_size=link.MAX_MESSAGE_BYTES,
                )
            if opening.cancelled_caught:
                raise Away("the connection ended, or took too long, before it was a WebSocket")
            try:
                yield Connection(websocket)
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await websocket.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _one_of(group) from None
    finally:
        await trio.aclose_forcefully(stream)


class _Watched(trio.abc.Stream):
    """Tells of its end: the library waits on for the answer to its handshake when the connection is cut behind it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except BaseException:
            self.ended.set()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            if not data:
                self.ended.set()
        return data

    async def aclose(self) -> None:
        self.ended.set()
        await self._stream.aclose()


async def _cancel_when(ended: trio.Event, scope: trio.CancelScope) -> None:
    await ended.wait()
    scope.cancel()


def _one_of(group: BaseExceptionGroup) -> BaseException:
    """What the caller's own task raised counts more than that the connection ended meanwhile."""
    ours, rest = group.split((Away, Refused, Forgotten, ConnectionRejected, ConnectionClosed, OSError))
    if rest is not None or ours is None:
        return group
    leaves = list(_leaves(ours))
    for kind in (Refused, Forgotten, ConnectionRejected, Away):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return _rejected(leaf) if isinstance(leaf, ConnectionRejected) else leaf
    return Away(str(leaves[0]))


def _leaves(group: BaseExceptionGroup) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _rejected(error: ConnectionRejected) -> Exception:
    try:
        body = json.loads(error.body or b"")
    except ValueError:
        body = None
    said = body.get("error") if isinstance(body, dict) else None
    sentence = said if isinstance(said, str) else f"It answered {error.status_code}; is it a Lobu gateway?"
    return Away(sentence) if error.status_code in _TIMES_THAT_PASS else Refused(sentence)


def _ended(closed: ConnectionClosed) -> Exception:
    reason = closed.reason
    code = math.nan if reason is None else reason.code
    sentence = (reason.reason if reason is not None else None) or f"the connection ended ({code})"
    if code == link.UNKNOWN_WORKER:
        return Forgotten(sentence)
    return Refused(sentence) if 4400 <= code < 4500 else Away(sentence)

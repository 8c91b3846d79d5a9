"""A pipe of a remote worker's link to a host elsewhere: a WebSocket of its own beside the host's links.

It begins like a link, by proving to each other who is who; then the client says whose worker it brings, and what
follows is the worker's. Messages travel in chunks, each with a mark whether it is the last one, since a link's frames
are shorter than a worker's may be.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec
import structlog
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection
from wsproto.utilities import ProtocolError

from lobu_actors.contract.worker_link import MAX_MESSAGE_BYTES
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.auth import HostClaims, HostTokens, new_nonce
from lobu_actors.gateway.link.connecting import CannotConnect, connect, open_stream, read_welcome
from lobu_actors.gateway.link.session import close
from lobu_actors.gateway.worker_door import CannotReach, Joining, PipeClosed
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_protocol import Peer

log = structlog.get_logger(__name__)

CHUNK_CHARS = wire.MAX_FRAME_CHARS // 2
CONNECT_SECONDS = 5.0
REFRESH_SECONDS = 2.0
_MORE, _LAST = "+", "."

FindOthers = Callable[[], Awaitable[Sequence[Peer]]]

_joining = msgspec.json.Decoder(Joining)


class WebSocketPipe:
    """Implements `WorkerPipe` over a WebSocket that its user opened, and whose tasks run elsewhere."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket
        self._sending = trio.Lock()
        self.closed = trio.Event()

    async def send(self, text: str) -> None:
        try:
            async with self._sending:
                for start in range(0, max(1, len(text)), CHUNK_CHARS):
                    mark = _LAST if start + CHUNK_CHARS >= len(text) else _MORE
                    await self._websocket.send_message(mark + text[start : start + CHUNK_CHARS])
        except (ConnectionClosed, ProtocolError) as error:
            raise self._ended(error) from None

    async def receive(self) -> str:
        parts: list[str] = []
        size = 0
        while True:
            try:
                chunk = await self._websocket.get_message()
            except (ConnectionClosed, ProtocolError) as error:
                raise self._ended(error) from None
            if not isinstance(chunk, str) or chunk[:1] not in (_MORE, _LAST):
                raise PipeClosed(1002, "a chunk without its mark")
            parts.append(chunk[1:])
            size += len(chunk)
            if size > MAX_MESSAGE_BYTES:
                raise PipeClosed(1009, f"a message of more than {MAX_MESSAGE_BYTES} characters")
            if chunk[0] == _LAST:
                return "".join(parts)

    async def close(self, code: int, reason: str) -> None:
        # 1006 says that nothing was said, so nobody may say it.
        await close(self._websocket, 1001 if code == 1006 else code, reason.encode()[:120].decode("utf-8", "ignore"))
        self.closed.set()

    def _ended(self, error: Exception) -> PipeClosed:
        self.closed.set()
        reason = error.reason if isinstance(error, ConnectionClosed) else None
        return PipeClosed(1006, str(error)) if reason is None else PipeClosed(reason.code, reason.reason or "")


async def read_joining(websocket: WebSocketConnection) -> Joining:
    """Whose worker a client brings. Raises WireError, ConnectionClosed."""
    try:
        return _joining.decode(await websocket.get_message())
    except msgspec.MsgspecError as error:
        raise wire.WireError(f"not whose worker it is: {error}") from None


class LinkDoor:
    """Implements `WorkerDoor` for hosts elsewhere, while `run` runs. `find` gives them with their addresses."""

    def __init__(self, me: Callable[[], str], tokens: HostTokens, find: FindOthers) -> None:
        self._me = me
        self._tokens = tokens
        self._find = find
        self._known: dict[str, Peer] = {}
        self._look_at = 0.0
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def hosts(self) -> list[str]:
        return list(await self._look())

    async def open(self, host_id: str, joining: Joining) -> WebSocketPipe:
        peer = (await self._look()).get(host_id)
        if peer is None or peer.link_url is None or self._nursery is None:
            raise CannotReach("that host has no address for links, or is gone")
        opening: list[WebSocketPipe | str] = []
        opened = trio.Event()
        held = trio.CancelScope()
        self._nursery.start_soon(self._hold, host_id, peer.link_url, joining, opening, opened, held)
        try:
            await opened.wait()
        except trio.Cancelled:  # nobody would close it
            held.cancel()
            raise
        if isinstance(opening[0], str):
            raise CannotReach(opening[0])
        return opening[0]

    async def _look(self) -> dict[str, Peer]:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + REFRESH_SECONDS
            with suppress(StoreUnavailable):  # those that were known are as good as ever
                self._known = {peer.host_id: peer for peer in await self._find() if peer.link_url is not None}
        return self._known

    async def _hold(
        self,
        host_id: str,
        url: str,
        joining: Joining,
        opening: list[WebSocketPipe | str],
        opened: trio.Event,
        held: trio.CancelScope,
    ) -> None:
        """The life of one pipe; `opening` gets it, or why there is none. Raises nothing but cancellation."""
        try:
            with held:
                await self._open_and_hold(host_id, url, joining, opening, opened)
        except* (
            CannotConnect,
            ConnectionRejected,
            ConnectionClosed,
            ProtocolError,
            trio.TooSlowError,
            trio.ClosedResourceError,
            trio.BrokenResourceError,
        ) as group:
            opening.append(str(group.exceptions[0]) or type(group.exceptions[0]).__name__)
        finally:
            if not opening:
                opening.append("the edge is ending")
            opened.set()

    async def _open_and_hold(
        self, host_id: str, url: str, joining: Joining, opening: list[WebSocketPipe | str], opened: trio.Event
    ) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_SECONDS):
                stream, host = await open_stream(url)
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    nonce = new_nonce()
                    token = self._tokens.sign(HostClaims(self._me(), host_id, nonce))
                    websocket = await connect(nursery, stream, host, token, wire.WORKER_PATH)
                    welcome = await read_welcome(websocket)
                    if self._tokens.verify(welcome.proof) != HostClaims(host_id, self._me(), nonce):
                        raise CannotConnect("the other side does not prove that it is that host")
                    await websocket.send_message(msgspec.json.encode(joining).decode())
                pipe = WebSocketPipe(websocket)
                opening.append(pipe)
                opened.set()
                await pipe.closed.wait()
            finally:
                await trio.aclose_forcefully(stream)
                nursery.cancel_scope.cancel()

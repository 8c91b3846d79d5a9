"""Where other processes link to this host: listens, checks who comes in, and serves each link until it ends.

A supervised child that outlives the host's membership: its sockets stay the same when the process joins again as a new
host, and links that were made to the old one are ended.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)
from wsproto.utilities import ProtocolError

from lobu_actors import telemetry
from lobu_actors.gateway.feed import Feeds
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.auth import HostClaims, HostTokens, bearer
from lobu_actors.gateway.link.session import close
from lobu_actors.gateway.link.worker_pipe import WebSocketPipe, read_joining
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.protocol import Gateway
from lobu_actors.gateway.worker_door import Joining, WorkerPipe
from lobu_actors.runtime.child_spec import ChildContext
from supervisor.links.serving import Hinted, ServedLink

log = structlog.get_logger(__name__)

HANDSHAKE_SECONDS = 5.0
MAX_LINKS = 512  # those that are being let in among them
NO_COMMON_VERSION = 4001
UNAUTHORIZED, NOT_FOUND = 401, 404


class Places(Protocol):
    """Of runners, at this host."""

    async def attach(self, pipe: WorkerPipe, joining: Joining, /) -> None:
        """Serve the link of one until it ends. Raises nothing."""
        ...

    def give_up(self, joining: Joining, /) -> bool:
        """Have a conversation at rest give up such a place. False: none here has one."""
        ...


class CannotListenForLinks(Exception):
    """The message says where and why."""


class Listen(msgspec.Struct, frozen=True):
    """`host` and `port` (0: any free one) for other hosts, `unix_path` for processes of this one."""

    host: str | None = None
    port: int = 0
    unix_path: Path | None = None


class LinkServer:
    """`me` gives this host's id, empty before it has joined; `gateway` its own conversations only."""

    def __init__(
        self,
        listen: Listen,
        me: Callable[[], str],
        tokens: HostTokens,
        gateway: Gateway,
        feeds: Feeds,
        owners: Owners,
        hinted: Hinted,
        places: Places,
    ) -> None:
        self._places = places
        self._listen = listen
        self._me = me
        self._tokens = tokens
        self._gateway = gateway
        self._feeds = feeds
        self._owners = owners
        self._hinted = hinted
        self._links = 0
        self.port: int | None = None  # of the TCP socket, once it listens

    async def run(self, context: ChildContext) -> None:
        """A supervised child. Raises CannotListenForLinks."""
        listeners = await self._open()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(trio.serve_listeners, self._serve, listeners)
                context.started(self.port)
                await context.stopping.wait()
                nursery.cancel_scope.cancel()
        finally:
            if self._listen.unix_path is not None:
                self._listen.unix_path.unlink(missing_ok=True)

    async def _open(self) -> list[trio.SocketListener]:
        listeners: list[trio.SocketListener] = []
        try:
            if self._listen.host is not None:
                # After a restart the same port, which the host table may have told to others.
                port = self.port or self._listen.port
                listeners += await trio.open_tcp_listeners(port, host=self._listen.host)
                self.port = listeners[0].socket.getsockname()[1]
            if self._listen.unix_path is not None:
                listeners.append(await _open_unix(self._listen.unix_path))
        except OSError as error:
            for listener in listeners:
                await listener.aclose()
            raise CannotListenForLinks(f"cannot listen for links on {self._listen}: {error.strerror}") from error
        return listeners

    async def _serve(self, stream: trio.SocketStream) -> None:
        if self._links >= MAX_LINKS:
            await trio.aclose_forcefully(stream)
            return
        self._links += 1
        try:
            if stream.socket.family != trio.socket.AF_UNIX:
                stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            async with trio.open_nursery() as nursery:
                await self._serve_one(nursery, stream)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed, OSError, ProtocolError) as group:
            log.info("link ended", reason=repr(group.exceptions[0]))
        except* Exception as group:
            # Whatever it is, and whoever is at the other end: one connection never takes the server down with it.
            log.error("link failed", exc_info=group)
        finally:
            self._links -= 1
            await trio.aclose_forcefully(stream)

    async def _serve_one(self, nursery: trio.Nursery, stream: trio.SocketStream) -> None:
        websocket: WebSocketConnection | None = None
        with trio.move_on_after(HANDSHAKE_SECONDS):
            request = await wrap_server_stream(nursery, stream, max_message_size=wire.MAX_FRAME_CHARS)
            claims = await self._let_in(request)
            if claims is None:
                return
            websocket = await request.accept()
            if not await self._welcome(websocket, claims):
                return
        if websocket is None or claims is None:
            return
        try:
            if request.path == wire.WORKER_PATH:
                await self._use_for_worker(websocket, claims)
            else:
                await self._use(nursery, websocket, claims)
        finally:
            await close(websocket)

    async def _let_in(self, request: WebSocketRequest) -> HostClaims | None:
        """None: refused, with one line in the log."""
        if request.path not in (wire.PATH, wire.WORKER_PATH):
            await request.reject(NOT_FOUND)
            return None
        token = bearer(request.headers)
        claims = None if token is None else self._tokens.verify(token)
        if claims is not None and claims.receiver == self._me():
            return claims
        reason = "no token" if token is None else "bad token" if claims is None else "meant for another host"
        log.warning("link refused", reason=reason, sender=claims.sender if claims else None)
        await request.reject(UNAUTHORIZED)
        return None

    async def _welcome(self, websocket: WebSocketConnection, claims: HostClaims) -> bool:
        try:
            hello = wire.from_client(await websocket.get_message())
        except wire.WireError as error:
            log.warning("link refused", reason=str(error), sender=claims.sender)
            return False
        version = wire.common_version(hello) if isinstance(hello, wire.Hello) else None
        if version is None:
            lowest, highest = wire.VERSIONS
            reason = f"no common version of the link protocol: this host speaks {lowest} to {highest}"
            log.error("link refused", reason=reason, sender=claims.sender)
            await close(websocket, NO_COMMON_VERSION, reason)
            return False
        proof = self._tokens.sign(HostClaims(claims.receiver, claims.sender, claims.nonce))
        await websocket.send_message(wire.encode(wire.Welcome(version, proof)))
        return True

    async def _use(self, nursery: trio.Nursery, websocket: WebSocketConnection, claims: HostClaims) -> None:
        def why_not() -> str | None:
            return None if claims.receiver == self._me() else "this host has another id now"

        link = ServedLink(
            websocket, nursery, self._gateway, self._feeds, self._owners, self._hinted, self._places.give_up, why_not
        )
        telemetry.LINKS_UP.labels("in").inc()
        log.info("link accepted", sender=claims.sender)
        try:
            reason = await link.run()
        finally:
            telemetry.LINKS_UP.labels("in").dec()
        log.info("link ended", sender=claims.sender, reason=reason)

    async def _use_for_worker(self, websocket: WebSocketConnection, claims: HostClaims) -> None:
        """A remote worker came in at that edge, and brings itself."""
        try:
            with trio.fail_after(HANDSHAKE_SECONDS):
                joining = await read_joining(websocket)
        except (wire.WireError, trio.TooSlowError) as error:
            reason = str(error) or f"it did not say within {HANDSHAKE_SECONDS:g} s whom it brings"
            log.warning("worker link refused", reason=reason, sender=claims.sender)
            return
        await self._places.attach(WebSocketPipe(websocket), joining)


async def _open_unix(path: Path) -> trio.SocketListener:
    """Ours alone: the state directory's lock says that whoever left a socket there is gone."""
    place = trio.Path(path)
    await place.unlink(missing_ok=True)
    socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await socket.bind(str(path))
        await place.chmod(0o600)
        socket.listen(128)
    except BaseException:
        socket.close()
        raise
    return trio.SocketListener(socket)

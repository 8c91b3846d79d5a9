"""Opens a connection to where a supervisor listens: `ws://host:port`, `wss://host:port` or `unix:/path`. Bounded by the
caller. Knows nothing of what is said over it but how it begins.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.session import closing_reason

_UNIX = "unix:"
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class CannotConnect(Exception):
    """`gone`: nobody listens there. `unfit`: trying again soon is no use."""

    def __init__(self, reason: str, *, gone: bool = False, unfit: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone
        self.unfit = unfit


async def connect(
    nursery: trio.Nursery, stream: Stream, host: str, token: str, path: str = wire.PATH
) -> WebSocketConnection:
    """Its tasks run in `nursery`, which fails with ConnectionRejected when the other side does not let us in. The
    stream stays the caller's to close: the library leaves it open when the other side closes first."""
    headers = [(b"Authorization", b"Bearer " + token.encode())]
    return await wrap_client_stream(
        nursery, stream, host, path, extra_headers=headers, max_message_size=wire.MAX_FRAME_CHARS
    )


async def open_stream(url: str) -> tuple[Stream, str]:
    """The stream, and the host as a request names it. Raises CannotConnect."""
    try:
        if url.startswith(_UNIX):
            return await trio.open_unix_socket(url.removeprefix(_UNIX)), "localhost"
        parts = urlsplit(url)
        secure = parts.scheme == "wss"
        if parts.hostname is None or parts.scheme not in ("ws", "wss"):
            raise CannotConnect(f"{url} is no address of a link", unfit=True)
        stream = await trio.open_tcp_stream(parts.hostname, parts.port or (443 if secure else 80))
        stream.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
        if not secure:
            return stream, parts.netloc
        context = ssl.create_default_context()
        return trio.SSLStream(stream, context, server_hostname=parts.hostname, https_compatible=True), parts.netloc
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise CannotConnect("nobody listens there", gone=True) from error
    except (OSError, ValueError) as error:
        refused = isinstance(error.__cause__, BaseExceptionGroup) and all(
            isinstance(one, ConnectionRefusedError) for one in error.__cause__.exceptions
        )
        raise CannotConnect(str(error), gone=refused) from error


async def read_welcome(websocket: WebSocketConnection) -> wire.Welcome:
    """Raises CannotConnect."""
    try:
        await websocket.send_message(wire.encode(wire.Hello(*wire.VERSIONS)))
        message = wire.from_server(await websocket.get_message())
    except ConnectionClosed as closed:
        raise CannotConnect(closing_reason(closed), unfit=True) from None
    except wire.WireError as error:
        raise CannotConnect(str(error), unfit=True) from None
    if not isinstance(message, wire.Welcome) or not wire.VERSIONS[0] <= message.version <= wire.VERSIONS[1]:
        raise CannotConnect("the other side does not say which version it speaks", unfit=True)
    return message

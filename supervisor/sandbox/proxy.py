"""One connection of a sandboxed worker to the outside: reads one request, checks it, and relays.

CONNECT becomes a tunnel; a plain request with an absolute `http://` target is written anew, from what was understood of
it, so that what the client wrote beyond that (a second request, folded or doubled headers, two lengths) never travels.
One request a connection. Every wait has a clock. Knows the list through `Allowlist`, and nothing of workers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from supervisor.sandbox.destinations import Allowlist, Refused

MAX_HEAD_BYTES = 32 * 1024
READ_BYTES = 64 * 1024
MAX_ADDRESSES = 8
_Alive = Callable[[], None]
_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    502: b"Bad Gateway",
    504: b"Gateway Timeout",
}
# Of one connection, never passed on (RFC 9110, 7.6.1); the length of the body is written by ourselves.
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"content-length", b"upgrade", b"host",
}  # fmt: skip


class Clocks(msgspec.Struct, frozen=True):
    """Seconds. `head`: for a whole request head; `connect`: for the name and the connection; `idle`: without a byte."""

    head: float = 10.0
    connect: float = 15.0
    idle: float = 900.0  # a model may think for minutes before its first byte


class _Target(msgspec.Struct, frozen=True):
    host: str
    port: int
    private: bool
    path: bytes = b""  # of a plain request, with its query

    @property
    def authority(self) -> bytes:
        return (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}").encode()


async def serve_connection(client: trio.abc.Stream, allowed: Allowlist, clocks: Clocks) -> str | None:
    """Serve one connection until it ends; the sentence that it was refused with, None when it was let through."""
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    status = 400
    try:
        with trio.fail_after(clocks.head):
            request = await _request(client, http)
        if request is None:
            return None
        status = 403
        target = _target(request, allowed)
        status = 502
        with trio.fail_after(clocks.connect):
            server = await _connect(target, allowed)
    except h11.RemoteProtocolError as error:
        return await _refuse(
            client, clocks, error.error_status_hint, f"The request cannot be read: {str(error).partition(':')[0]}."
        )
    except Refused as error:
        return await _refuse(client, clocks, 403, str(error))
    except trio.TooSlowError:
        slow = "The request head took too long." if status == 400 else "The destination did not answer in time."
        return await _refuse(client, clocks, 408 if status == 400 else 504, slow)
    except OSError as error:
        if status == 502:
            await _refuse(client, clocks, 502, f"The destination cannot be reached: {error.strerror or error}.")
        return None
    async with server:
        await _relay(client, server, http, request, target, clocks)
    return None


async def _request(client: trio.abc.Stream, http: h11.Connection) -> h11.Request | None:
    """The head of the request; None when the client went away without one."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            data = bytes(await client.receive_some(READ_BYTES))
        except trio.BrokenResourceError:
            return None
        if not data and not http.trailing_data[0]:
            return None
        http.receive_data(data)


def _target(request: h11.Request, allowed: Allowlist) -> _Target:
    names = [name for name, _ in request.headers]
    if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
        raise Refused("The request has a header twice that may be there once.")
    if b"transfer-encoding" in names and b"content-length" in names:
        raise Refused("The request gives its length in two ways.")
    text = request.target.decode("latin-1")
    if request.method == b"CONNECT":
        return _Target(*allowed.find(text))
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise Refused("The target of the request cannot be read.") from error
    scheme, separator, rest = text.partition("://")
    if scheme.lower() != "http" or not separator:
        raise Refused("The target must be a whole http:// address; for https use CONNECT.")
    if "\\" in text or "#" in text or not text.isascii():
        raise Refused("The target of the request has characters that no address has.")
    # Cut here and not by urlsplit, which drops and decodes.
    authority = rest[: min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))]
    if authority != parts.netloc:
        raise Refused("The target of the request can be read in two ways.")
    named = authority if authority.rpartition("]")[2].find(":") >= 0 else f"{authority}:80"
    host, port, private = allowed.find(named)
    told = next((value for name, value in request.headers if name == b"host"), None)
    if told is not None and told.decode("latin-1").lower() not in (authority.lower(), f"{authority.lower()}:80"):
        raise Refused("The Host header names another host than the target.")
    path = rest[len(authority) :]
    return _Target(host, port, private, (path if path.startswith("/") else f"/{path}").encode("ascii"))


async def _connect(target: _Target, allowed: Allowlist) -> trio.SocketStream:
    """To an address that was checked, never to the name again. Raises Refused, OSError."""
    found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = allowed.check_addresses(target.host, dict.fromkeys(str(entry[4][0]) for entry in found), target.private)
    return await _first(addresses[:MAX_ADDRESSES], target.port)


async def _first(addresses: Sequence[str], port: int) -> trio.SocketStream:
    last: OSError = OSError("it has no address")
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            await connection.connect((address, port))
        except OSError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
        else:
            return trio.SocketStream(connection)
    raise last


async def _relay(
    client: trio.abc.Stream,
    server: trio.SocketStream,
    http: h11.Connection,
    request: h11.Request,
    target: _Target,
    clocks: Clocks,
) -> None:
    """Both ways, until the server ends, either side breaks, or neither says anything for the idle time."""
    with trio.CancelScope(deadline=trio.current_time() + clocks.idle) as idle:

        def alive() -> None:
            idle.deadline = trio.current_time() + clocks.idle

        try:
            async with trio.open_nursery() as nursery:
                if request.method == b"CONNECT":
                    await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    early = bytes(http.trailing_data[0])
                    nursery.start_soon(_pump_up, client, server, early, alive)
                else:
                    nursery.start_soon(_pump_request, client, server, http, request, target, alive)
                while data := await server.receive_some(READ_BYTES):
                    alive()
                    await client.send_all(data)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass  # one side is gone or lost the thread: both connections end


async def _pump_up(client: trio.abc.Stream, server: trio.SocketStream, early: bytes, alive: _Alive) -> None:
    data = early or await client.receive_some(READ_BYTES)
    while data:
        alive()
        await server.send_all(data)
        data = await client.receive_some(READ_BYTES)
    await server.send_eof()


async def _pump_request(
    client: trio.abc.Stream,
    server: trio.SocketStream,
    http: h11.Connection,
    request: h11.Request,
    target: _Target,
    alive: _Alive,
) -> None:
    """The request, written by h11 from what h11 read. Its end is the last thing that is read of the client."""
    writer = h11.Connection(h11.CLIENT)
    nominated = {
        word.strip().lower() for name, value in request.headers if name == b"connection" for word in value.split(b",")
    }
    headers = [(b"Host", target.authority), (b"Connection", b"close")]
    headers += [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP | nominated]
    headers += [(n, v) for n, v in request.headers if n in (b"content-length", b"transfer-encoding")]
    message = h11.Request(method=request.method, target=target.path, headers=headers)
    await server.send_all(writer.send(message) or b"")
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await client.receive_some(READ_BYTES))
            alive()
            http.receive_data(data)
        elif isinstance(event, h11.Data):
            await server.send_all(writer.send(h11.Data(data=event.data)) or b"")
        elif isinstance(event, h11.EndOfMessage):
            await server.send_all(writer.send(h11.EndOfMessage()) or b"")
            return
        else:
            raise h11.RemoteProtocolError("the request did not end")


async def _refuse(client: trio.abc.Stream, clocks: Clocks, status: int, sentence: str) -> str:
    http = h11.Connection(h11.SERVER)
    body = f"{sentence}\n".encode("utf-8", "replace")
    headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
    ]
    answer = http.send(h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))) or b""
    answer += http.send(h11.Data(data=body)) or b""
    with trio.move_on_after(clocks.head):
        try:
            await client.send_all(answer)
            if isinstance(client, trio.SocketStream):
                await client.send_eof()
                # Closing with bytes unread would reset the connection, and the answer with it.
                while await client.receive_some(READ_BYTES):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    return sentence

"""Listening sockets with the options that the edge relies on. Knows nothing of HTTP.

TCP_USER_TIMEOUT and the buffer size are set on the listener, from which accepted sockets have them: a reader that
takes nothing is dropped by the kernel, and holds a bounded amount of memory until then.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import trio

from edge.settings import EdgeSettings

_ADVICE = {errno.EADDRNOTAVAIL: "give an address of this machine", errno.EACCES: "choose a port from 1024 on"}


class CannotListen(Exception):
    """The address cannot be listened on; the message is a sentence for the operator."""


class PortTaken(CannotListen):
    """Another program listens there."""


async def bind(host: str, port: int, settings: EdgeSettings) -> list[socket.socket]:
    """Listening sockets for every address of `host` (empty or `*`: all, IPv4 and IPv6). Port 0: one free port for all.

    Raises PortTaken or CannotListen; then nothing is left open.
    """
    if not 0 <= port <= 65_535:
        raise CannotListen(f"{port} is not a port; use 1 to 65535, or 0 for any that is free.")
    name = None if host in {"", "*"} else host.strip("[]")
    try:
        found = await trio.socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE, proto=socket.IPPROTO_TCP
        )
    except OSError as error:
        raise CannotListen(f"The host {host!r} is not known here: {error.strerror or error}.") from None
    addresses = list(dict.fromkeys((family, address[0]) for family, _, _, _, address in found))
    opened: list[socket.socket] = []
    try:
        for family, address in addresses:
            at = opened[0].getsockname()[1] if opened and port == 0 else port
            listener = _listen(family, str(address), at, settings, required=not opened and len(addresses) == 1)
            if listener is not None:
                opened.append(listener)
        if not opened:
            raise CannotListen(f"None of the addresses of {host!r} can be listened on.")
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(sockets: Sequence[socket.socket]) -> None:
    for listener in sockets:
        listener.close()


def _listen(family: int, address: str, port: int, settings: EdgeSettings, *, required: bool) -> socket.socket | None:
    """None: this machine lacks the address family, and another address may do."""
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if required:
            raise CannotListen(f"This machine cannot listen on {address}.") from None
        return None
    try:
        configure(listener, settings)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(settings.backlog)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            sentence = (
                f"Port {port} on {address} is taken by another program; choose another port or stop that program."
            )
            raise PortTaken(sentence) from None
        if error.errno == errno.EADDRNOTAVAIL and not required:
            return None
        advice = _ADVICE.get(error.errno or 0, "choose another address or port")
        raise CannotListen(f"Cannot listen on {address} port {port}: {error.strerror}; {advice}.") from None
    return listener


def configure(listener: socket.socket, settings: EdgeSettings) -> None:
    """The edge's options on a listening socket; for one that was inherited too."""
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.stalled_reader_seconds * 1000))

"""A connection's socket: what is read on it is its own."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from edge.connection import Connection, Gone


async def test_a_number_that_is_another_connections_by_now_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes may close the connection while something has come on it that is not read yet."""
    ours, peer = socket.socketpair()
    other, other_peer = socket.socketpair()
    other.setblocking(False)
    connection = Connection(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), 1.0, trio.Event())
    number, wait_readable = ours.fileno(), trio.lowlevel.wait_readable

    async def then_closed(descriptor: int) -> None:
        await wait_readable(descriptor)
        connection.close()
        os.dup2(other.fileno(), number)  # as the next accept may be given it

    monkeypatch.setattr(trio.lowlevel, "wait_readable", then_closed)
    peer.send(b"mine")
    other_peer.send(b"another's")
    try:
        with pytest.raises(Gone):
            await connection.receive()
        assert other.recv(100) == b"another's"
    finally:
        os.close(number)
        for each in (peer, other, other_peer):
            each.close()

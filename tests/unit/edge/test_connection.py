"""A connection's socket: what is read on it is its own."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from edge.connection import Connection, Gone
from edge.settings import EdgeSettings


async def test_a_number_that_is_another_connections_by_now_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes may close the connection while something has come on it that is not read yet."""
    ours, peer = socket.socketpair()
    other, other_peer = socket.socketpair()
    other.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    connection = Connection(stream, EdgeSettings(), trio.Event())
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


async def test_one_that_is_closed_already_may_be_ended() -> None:
    """When its server stops, and its task has not heard of it yet."""
    ours, peer = socket.socketpair()
    ending = trio.Event()
    connection = Connection(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), EdgeSettings(), ending)
    with peer, connection.reading():
        connection.clock(idle=True)
        connection.reset()
        ending.set()
        connection.end_if_idle()
        connection.clock(idle=True)

"""Addresses and ports that an edge listens on, and sockets that it is handed."""

from __future__ import annotations

import socket

import pytest
import trio

from edge.listening import CannotListen, PortTaken, bind, close_all
from edge.server import serve
from edge.settings import EdgeSettings
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running


async def test_port_that_is_taken_is_named(server: Running) -> None:
    with pytest.raises(PortTaken, match=rf"Port {server.port} on 127\.0\.0\.1 is taken"):
        await bind("127.0.0.1", server.port, server.world.settings)


async def test_all_addresses_share_one_free_port() -> None:
    sockets = await bind("", 0, EdgeSettings())
    try:
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
        timeouts = [opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) for opened in sockets]
        assert timeouts == [20_000] * len(sockets)
    finally:
        close_all(sockets)


async def test_hosts_and_ports_that_cannot_be() -> None:
    with pytest.raises(CannotListen, match="not known"):
        await bind("no.such.host.invalid", 0, EdgeSettings())
    with pytest.raises(CannotListen, match="not a port"):
        await bind("127.0.0.1", 70_000, EdgeSettings())
    with pytest.raises(CannotListen, match=r"Cannot listen on 192\.0\.2\.1 .*; give an address of this machine"):
        await bind("192.0.2.1", 0, EdgeSettings())


async def test_ipv6_address_in_brackets() -> None:
    try:
        sockets = await bind("[::1]", 0, EdgeSettings())
    except CannotListen:
        pytest.skip("this machine has no IPv6")
    assert [opened.family for opened in sockets] == [socket.AF_INET6]
    close_all(sockets)


async def test_sockets_may_be_handed_over(nursery: trio.Nursery) -> None:
    world = await EdgeWorld.make()
    sockets = await bind("127.0.0.1", 0, world.settings)
    stopping = trio.Event()

    async def run(*, task_status: trio.TaskStatus[int]) -> None:
        await serve(world.application, world.settings, stopping=stopping, sockets=sockets, task_status=task_status)

    port = await nursery.start(run)
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert b"200" in await stream.receive_some()
    stopping.set()

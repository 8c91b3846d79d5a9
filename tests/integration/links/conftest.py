"""What tests of links share: two linked hosts, and clocks of links that end nothing unless a test sets them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from lobu_actors.gateway.link import client, session, wire
from lobu_actors.gateway.link.auth import HostClaims
from lobu_actors.store.memory import MemoryStore
from tests.fakes.linked_host import LinkedHost, linked_host, until_linked
from tests.fakes.proxy import Proxy

PATIENCE_SECONDS = 60.0
CLAIMS = HostClaims("a", "b", "nonce")


@pytest.fixture(autouse=True)
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long this process, which is all hosts, has to wait for its turn."""
    monkeypatch.setattr(client, "STATUS_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(session, "SILENT_SECONDS", PATIENCE_SECONDS)


@attrs.frozen
class Pair:
    """`a` reaches `b` through the proxy."""

    a: LinkedHost
    b: LinkedHost
    proxy: Proxy


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    store = MemoryStore()
    async with linked_host(store, "a") as a, linked_host(store, "b") as b, trio.open_nursery() as nursery:
        assert b.server.port is not None
        proxy = Proxy(b.server.port)
        await nursery.start(proxy.run)
        await a.join()
        await b.join(f"ws://127.0.0.1:{proxy.port}")
        await until_linked(a, b)
        await until_linked(b, a)
        yield Pair(a, b, proxy)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_raw(host: LinkedHost, token: str | None, path: str = wire.PATH) -> AsyncIterator[WebSocketConnection]:
    """A connection to a host's server, of which the test says every frame itself."""
    headers = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    assert host.server.port is not None
    stream = await trio.open_tcp_stream("127.0.0.1", host.server.port)
    try:
        async with trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, "127.0.0.1", path, extra_headers=headers)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await trio.aclose_forcefully(stream)

"""A runner's place against a gateway by hand: what a cut does to a message that is being taken."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, serve_websocket

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from supervisor.remote.connection import Address, Away
from supervisor.remote.place import Place
from supervisor.remote.sending import Send, Sending
from supervisor.remote.tenant import Tenant

SECONDS = 10.0
MESSAGE = frames.encode(frames.Steer(run_id="r", message_id="m", content="x")).decode().strip()


class WatchedSending(Sending):
    def __init__(self) -> None:
        super().__init__()
        self.failed = trio.Event()

    async def send_over(self, send: Send) -> None:
        try:
            await super().send_over(send)
        except Away:
            self.failed.set()
            raise


class SlowTenant:
    """Takes a message for as long as the test says. What a place knows of a `Tenant`."""

    worker_id, host, grace_seconds = "w", "host", 60.0

    def __init__(self) -> None:
        self.sending = WatchedSending()
        self.gone = trio.Event()
        self.in_turn = False
        self.takes = trio.Event()
        self.may_take = trio.Event()
        self.taken: list[str] = []

    async def take(self, message: link.LinkMessage | None, text: str) -> None:
        self.takes.set()
        await self.may_take.wait()
        self.taken.append(text)

    def kill(self) -> None:
        self.gone.set()

    async def drop(self) -> None:
        self.gone.set()


@attrs.define
class Gateway:
    """Each connection that came in, with how its runner joined."""

    came: trio.MemorySendChannel[tuple[WebSocketConnection, link.Join]]

    async def serve(self, request: WebSocketRequest) -> None:
        websocket = await request.accept()
        join = link.decode(await websocket.get_message())
        assert isinstance(join, link.Join)
        await self.came.send((websocket, join))
        await trio.sleep_forever()


async def test_a_message_that_is_being_taken_when_the_link_is_cut_is_taken_whole() -> None:
    """It counts as received, so no connection brings it again."""
    tenant: Any = SlowTenant()
    send, came = trio.open_memory_channel[tuple[WebSocketConnection, link.Join]](10)
    async with trio.open_nursery() as nursery:
        server: Any = await nursery.start(serve_websocket, Gateway(send).serve, "127.0.0.1", 0, None)
        address = Address(f"http://127.0.0.1:{server.port}", "key")
        place = Place(address, _join_of, lambda joined: tenant, lambda: None)
        nursery.start_soon(place.run)
        with trio.fail_after(SECONDS):
            first, _ = await came.receive()
            await first.send_message(link.encode(link.Joined("host", "w", 60.0)))
            await first.send_message(MESSAGE)
            await tenant.takes.wait()
            await trio.aclose_forcefully(first._stream)  # a cut, not a close
            while not tenant.sending.failed.is_set():
                tenant.sending.put_now(MESSAGE)  # as of a worker that gives signs of life
                await trio.sleep(0.01)
            tenant.may_take.set()
            _, again = await came.receive()
        assert (again.received, tenant.taken) == (1, [MESSAGE])
        nursery.cancel_scope.cancel()


def _join_of(tenant: Tenant | None) -> link.Join:
    return link.Join(
        "gpu", link.LINK_VERSION, frames.PROTOCOL_VERSION, "test",
        "" if tenant is None else tenant.worker_id, "host", 0 if tenant is None else tenant.sending.received,
    )  # fmt: skip

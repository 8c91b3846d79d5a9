"""Pipes of remote workers to hosts elsewhere: whoever stops wanting one, nothing of it is left at this end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from lobu_actors.gateway.link import worker_pipe
from lobu_actors.gateway.link.worker_pipe import LinkDoor
from lobu_actors.gateway.worker_door import Joining, PipeClosed
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.memory import MemoryStore
from tests.fakes.linked_host import TOKENS, LinkedHost, linked_host, until
from tests.fakes.proxy import Proxy

GPU = Joining("acme", "gpu")


@attrs.frozen
class Doorway:
    door: LinkDoor
    proxy: Proxy
    host: LinkedHost
    held: trio.Nursery  # what the door runs
    away: trio.Event  # the store is, from now on

    @property
    def tasks(self) -> int:
        return _tasks_of(self.held)


def _tasks_of(nursery: trio.Nursery) -> int:
    children = nursery.child_tasks
    return len(children) + sum(_tasks_of(inner) for task in children for inner in task.child_nurseries)


@pytest.fixture
async def doorway() -> AsyncIterator[Doorway]:
    async with linked_host(MemoryStore(), "b") as host, trio.open_nursery() as nursery:
        assert host.server.port is not None
        proxy = Proxy(host.server.port)
        await nursery.start(proxy.run)

        away = trio.Event()

        async def find() -> list[Peer]:
            if away.is_set():
                raise StoreUnavailable("away")
            return [Peer("b", f"ws://127.0.0.1:{proxy.port}")]

        door = LinkDoor(lambda: "a", TOKENS, find)
        async with trio.open_nursery() as held:
            await held.start(door.run)
            yield Doorway(door, proxy, host, held, away)
            held.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def test_a_pipe_is_opened_and_its_end_leaves_nothing(doorway: Doorway) -> None:
    alone = doorway.tasks
    pipe = await doorway.door.open("b", GPU)
    assert doorway.tasks > alone
    with pytest.raises(PipeClosed):  # that host has no workers
        await pipe.receive()
    await until(lambda: doorway.tasks == alone)


async def test_nothing_is_held_for_who_did_not_wait_until_it_was_open(doorway: Doorway) -> None:
    """A runner that hangs up while its edge calls a host that is slow."""
    alone = doorway.tasks
    doorway.proxy.stall()
    with trio.move_on_after(0.1) as waited:
        await doorway.door.open("b", GPU)
    assert waited.cancelled_caught
    doorway.proxy.heal()
    await until(lambda: doorway.tasks == alone)


async def test_hosts_that_were_known_are_reached_while_the_store_is_away(
    doorway: Doorway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that comes back then, to a worker in the middle of its turn."""
    monkeypatch.setattr(worker_pipe, "REFRESH_SECONDS", 0.0)
    assert await doorway.door.hosts() == ["b"]
    doorway.away.set()
    assert await doorway.door.hosts() == ["b"]
    pipe = await doorway.door.open("b", GPU)
    await pipe.close(1000, "")

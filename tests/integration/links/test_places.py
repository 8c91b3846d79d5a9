"""A place of a runner is asked for over links."""

from __future__ import annotations

from lobu_actors.gateway.worker_door import Joining
from lobu_actors.store.memory import MemoryStore
from tests.fakes.linked_host import linked_host, until_linked

GPU, TPU = Joining("acme", "gpu"), Joining("acme", "tpu")


async def test_each_host_is_asked_and_one_that_has_some_is_enough() -> None:
    store = MemoryStore()
    async with linked_host(store, "a") as a, linked_host(store, "b") as b, linked_host(store, "c") as c:
        for host in (a, b, c):
            await host.join()
        for other in (b, c):
            await until_linked(a, other)
        b.places.held.add(GPU)
        assert await a.peers.give_up_place(GPU) is True
        assert await a.peers.give_up_place(TPU) is False
        assert (a.places.asked, b.places.asked, c.places.asked) == ([], [GPU, TPU], [GPU, TPU])


async def test_alone_there_is_nobody_to_ask() -> None:
    async with linked_host(MemoryStore(), "a") as a:
        await a.join()
        assert await a.peers.give_up_place(GPU) is False

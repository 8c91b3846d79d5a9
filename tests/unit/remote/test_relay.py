"""The relay between a place that came in at an edge and the hosts, which run in this process."""

from __future__ import annotations

from pathlib import Path

import trio

from edge.worker_relay import WorkerRelay
from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.gateway.worker_door import CannotReach, Joining, WorkerPipe
from supervisor.remote.pool import RemoteWorkers
from tests.fakes.remote_host import GPU, SECONDS, World, running, until


class Door:
    """Two hosts, in this process."""

    def __init__(self, **hosts: RemoteWorkers) -> None:
        self.known = hosts
        self.seconds: dict[str, float] = {}  # that the way to a host takes

    async def hosts(self) -> list[str]:
        return list(self.known)

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        if host_id not in self.known:
            raise CannotReach("no such host")
        await trio.sleep(self.seconds.get(host_id, 0))
        return self.known[host_id].open(joining)


class Edge:
    """A place that came in at an edge."""

    def __init__(self, door: Door, nursery: trio.Nursery) -> None:
        self.up, receive = trio.open_memory_channel[str](100)
        send, self.down = trio.open_memory_channel[str](1000)
        join = link.Join("gpu", link.LINK_VERSION, frames.PROTOCOL_VERSION)
        self.relay = WorkerRelay(door, GPU, join, link.encode(join), hosts_seconds=0.02, join_seconds=0.3)
        self.ended: list[tuple[int, str]] = []

        async def run() -> None:
            self.ended.append(await self.relay.run(receive.receive, send.send))

        nursery.start_soon(run)

    async def joined(self) -> link.Joined:
        with trio.fail_after(SECONDS):
            while not isinstance(message := link.decode(await self.down.receive()), link.Joined):
                pass
        return message


async def test_a_place_is_offered_to_all_hosts_and_taken_by_one(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with running(World(tmp_path / "a")) as a, running(World(tmp_path / "b")) as b:
        places = [Edge(Door(a=a.workers, b=b.workers), nursery) for _ in range(2)]
        await until(lambda: a.workers.idle("org", "gpu") + b.workers.idle("org", "gpu") == 4)
        wanted = {client.worker.worker_id for client in (a.start(), b.start())}  # at the same moment
        assert {(await place.joined()).worker for place in places} == wanted
        await until(lambda: a.workers.idle("org", "gpu") + b.workers.idle("org", "gpu") == 0)
        for place in places:
            place.relay.end(1012, "the edge goes")


async def test_a_host_that_is_dialled_when_another_has_taken_the_place_has_none(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with running(World(tmp_path / "a")) as a, running(World(tmp_path / "b")) as b:
        client = a.start()  # it waits, so `a` takes the place at once
        door = Door(a=a.workers, b=b.workers)
        door.seconds["b"] = 0.2
        place = Edge(door, nursery)
        assert (await place.joined()).worker == client.worker.worker_id
        late = b.start(seconds=0.8)
        assert "No place of a remote worker" in (await late.gone()).detail
        place.relay.end(1012, "the edge goes")


async def test_a_host_that_comes_later_is_offered_the_place_too(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with running(World(tmp_path / "a")) as a, running(World(tmp_path / "b")) as b:
        door = Door(a=a.workers)
        place = Edge(door, nursery)
        client = b.start()
        door.known["b"] = b.workers
        assert (await place.joined()).worker == client.worker.worker_id
        place.relay.end(1012, "the edge goes")


async def test_without_a_host_the_place_is_sent_away(nursery: trio.Nursery) -> None:
    place = Edge(Door(), nursery)
    await until(lambda: place.ended)
    assert place.ended[0][0] == link.NOBODY_THERE

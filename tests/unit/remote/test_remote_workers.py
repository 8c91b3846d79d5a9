"""Places, workers and the relay with scripted runners on pipes in memory: who gets what, and what is not believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from edge.worker_relay import WorkerRelay
from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import (
    Gone,
    WorkerFrames,
    WorkerGone,
    WorkerReady,
    WorkerRequest,
    WorkerSignal,
)
from lobu_actors.gateway.worker_door import CannotReach, Joining, PipeClosed, WorkerPipe
from lobu_actors.runtime.child_spec import ChildContext
from supervisor.remote.pool import RemoteWorkers
from supervisor.remote.worker import RemoteWorker
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces

GPU = Joining("org", "gpu")
SECONDS = 10.0


async def until(condition: Callable[[], object]) -> None:
    deadline = trio.current_time() + SECONDS
    while not condition():
        assert trio.current_time() < deadline
        await trio.sleep(0.01)


@attrs.define
class Client:
    """The conversation's side."""

    ref: ConversationRef
    signals: trio.MemoryReceiveChannel[WorkerSignal]
    worker: RemoteWorker

    async def next(self) -> WorkerSignal:
        with trio.fail_after(SECONDS):
            return await self.signals.receive()

    async def gone(self) -> WorkerGone:
        while not isinstance(signal := await self.next(), WorkerGone):
            pass
        return signal

    async def frame(self) -> frames.Frame:
        """The next frame that is no sign of life."""
        while True:
            signal = await self.next()
            assert isinstance(signal, WorkerFrames), signal
            if not isinstance(signal.frames[0], frames.Heartbeat):
                return signal.frames[0]


class Runner:
    """A place of a runner, by hand."""

    def __init__(self, pipe: WorkerPipe) -> None:
        self.pipe = pipe
        self.received = 0
        self.worker = ""

    async def join(self, worker: str = "gpu", *, resume: str = "", received: int = 0) -> None:
        join = link.Join(worker, link.LINK_VERSION, frames.PROTOCOL_VERSION, "test", resume, "host", received)
        await self.pipe.send(link.encode(join))

    async def next(self) -> Any:
        """The next message but signs of life: a link message, or a frame as its JSON."""
        with trio.fail_after(SECONDS):
            while True:
                text = await self.pipe.receive()
                message = link.decode(text)
                if isinstance(message, link.Received):
                    continue
                if link.is_counted(message):
                    self.received += 1
                return json.loads(text) if message is None else message

    async def taken(self) -> link.Joined:
        joined = await self.next()
        assert isinstance(joined, link.Joined)
        self.worker = joined.worker
        return joined

    async def ready(self) -> None:
        await self.taken()
        assert (await self.next())["type"] == "hello"
        await self.say(frames.Ready(capabilities=["cancel"]))

    async def say(self, frame: frames.Frame | link.LinkMessage) -> None:
        text = link.encode(frame) if isinstance(frame, link.LinkMessage) else frames.encode(frame).decode().strip()
        await self.pipe.send(text)

    async def closed(self) -> PipeClosed:
        with trio.fail_after(SECONDS):
            while True:
                try:
                    await self.pipe.receive()
                except PipeClosed as closed:
                    return closed


class World:
    def __init__(self, folder: Path, grace: float = 0.3, limits: WorkerLimits | None = None) -> None:
        self.types = {
            "gpu": WorkerType("gpu", (), remote=True, reconnect_seconds=grace),
            "here": WorkerType("here", ("true",)),
        }
        self.workspaces = HostWorkspaces(folder, max_bytes=10_000)
        limits = limits or WorkerLimits(stop_grace_seconds=0.2, killed_seconds=0.2)
        quota = Quota(max_bytes=50_000, max_files=5)
        self.workers = RemoteWorkers(lambda: "host", self.types, self.workspaces, limits, quota)
        self.number = 0

    def start(self, seconds: float = SECONDS, organization: str = "org") -> Client:
        self.number += 1
        send, receive = trio.open_memory_channel[WorkerSignal](1000)
        ref = ConversationRef(organization, "agent", f"conversation-{self.number}")
        request = WorkerRequest(ref, "gpu", {}, {}, seconds)
        return Client(ref, receive, self.workers.start(request, send.send))

    async def runner(self, joining: Joining = GPU, *, join: bool = True) -> Runner:
        runner = Runner(self.workers.open(joining))
        if join:
            await runner.join()
        return runner

    async def pair(self) -> tuple[Client, Runner]:
        client, runner = self.start(), await self.runner()
        await runner.ready()
        assert isinstance(await client.next(), WorkerReady)
        return client, runner


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(World(tmp_path)) as found:
        yield found


class running:
    def __init__(self, world: World) -> None:
        self.world = world

    async def __aenter__(self) -> World:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        self._context = ChildContext("remote workers")
        self._nursery.start_soon(self.world.workers.run, self._context)
        while not self._context.is_started:
            await trio.lowlevel.checkpoint()
        return self.world

    async def __aexit__(self, *error: Any) -> None:
        self._context.stopping.set()
        await self._manager.__aexit__(*error)
        self.world.workspaces.close()


async def test_places_are_given_within_an_organization(world: World) -> None:
    foreign = await world.runner(Joining("rival", "gpu"))
    first, second = world.start(), world.start()
    runners = [await world.runner(), await world.runner()]
    taken = {(await runner.taken()).worker for runner in runners}
    assert taken == {first.worker.worker_id, second.worker.worker_id}
    assert world.workers.idle("rival", "gpu") == 1
    await foreign.pipe.close(1000, "")


async def test_a_place_that_came_too_late_is_the_next_ones(world: World) -> None:
    late = world.start(seconds=0.05)
    gone = await late.gone()
    assert gone.reason == Gone.NOT_STARTED
    assert "lobu worker connect URL --type gpu" in gone.detail
    runner = await world.runner()
    client = world.start()
    assert (await runner.taken()).worker == client.worker.worker_id


async def test_while_all_work_a_place_is_waited_for_and_room_made(world: World) -> None:
    first, runner = await world.pair()
    asked: list[bool] = []
    world.workers.end_one_at_rest = lambda refs: asked.append(first.ref in refs)
    late = world.start(seconds=0.05)
    await until(lambda: len(asked) == 3)  # longer than its start may take
    assert asked == [True] * 3
    first.worker.shutdown(0)
    await runner.say(link.Ended(Gone.EXITED, "It ended.", 0))
    await (await world.runner()).ready()
    assert isinstance(await late.next(), WorkerReady)


async def test_when_the_last_that_works_is_gone_nobody_is_waited_for(world: World) -> None:
    first, _runner = await world.pair()
    late = world.start(seconds=0.05)
    await trio.sleep(0.1)  # what it waits for from now on is the first one's end alone
    with pytest.raises(trio.WouldBlock):
        late.signals.receive_nowait()
    first.worker.kill()
    assert (await late.gone()).reason == Gone.NOT_STARTED


async def test_a_place_is_waited_for_no_longer_than_is_set(tmp_path: Path) -> None:
    limits = WorkerLimits(stop_grace_seconds=0.2, killed_seconds=0.2, place_seconds=0.7)
    async with running(World(tmp_path, limits=limits)) as world:
        await world.pair()
        gone = await world.start(seconds=0.05).gone()
        assert gone.reason == Gone.NOT_STARTED
        assert "free within 0.7 s" in gone.detail


async def test_a_place_that_is_lost_before_its_worker_is_ready_is_replaced(world: World) -> None:
    client, first = world.start(), await world.runner()
    await first.taken()
    await first.pipe.close(1000, "")
    second = await world.runner()
    await second.ready()
    assert isinstance(await client.next(), WorkerReady)


@pytest.mark.parametrize(
    ("joining", "worker", "sentence"),
    [
        (GPU, "tpu", "The token is for workers of type 'gpu'"),
        (Joining("org", "here"), "here", "no remote worker type 'here'"),
        (Joining("org", "none"), "none", "no remote worker type 'none'"),
    ],
)
async def test_who_does_not_fit_is_refused(world: World, joining: Joining, worker: str, sentence: str) -> None:
    runner = await world.runner(joining, join=False)
    await runner.join(worker)
    closed = await runner.closed()
    assert closed.code == link.REFUSED
    assert sentence in closed.reason


async def test_a_cut_loses_and_repeats_nothing(world: World) -> None:
    client, runner = await world.pair()
    for number in range(5):
        await runner.say(frames.Delta(run_id="r", text=str(number)))
    said = 1 + 5  # `ready` among it
    for number in range(5):
        assert (await client.frame()).text == str(number)
    client.worker.send(frames.Cancel(run_id="r", reason="x", grace_seconds=1))
    client.worker.send(frames.Steer(run_id="r", message_id="m", content="x"))
    assert (await runner.next())["type"] == "cancel"
    received = runner.received
    await runner.pipe.close(1006, "cut")
    client.worker.send(frames.Answer(run_id="r", question_id="q", answer="a"))
    again = await world.runner(join=False)
    await again.join(resume=runner.worker, received=received)
    joined = await again.next()
    assert (joined.worker, joined.received) == (runner.worker, said)
    assert [(await again.next())["type"] for _ in range(2)] == ["steer", "answer"]
    await again.say(frames.Complete(run_id="r"))
    assert isinstance(await client.frame(), frames.Complete)


async def test_the_grace_counts_from_the_last_cut(tmp_path: Path) -> None:
    async with running(World(tmp_path, grace=1.0)) as world:
        client, runner = await world.pair()
        began = trio.current_time()
        while trio.current_time() < began + 2.0:  # together longer than the grace, each for itself much shorter
            await runner.pipe.close(1006, "cut")
            await trio.sleep(0.3)
            again = await world.runner(join=False)
            await again.join(resume=runner.worker, received=runner.received)
            await again.taken()
            again.received, runner = runner.received, again
            client.worker.send(frames.Steer(run_id="r", message_id="m", content="x"))
            assert (await runner.next())["type"] == "steer", "what is sent goes over the new connection"
        await runner.say(frames.Delta(run_id="r", text="still here"))
        assert (await client.frame()).text == "still here"


async def test_a_second_connection_replaces_the_first(world: World) -> None:
    client, runner = await world.pair()
    again = await world.runner(join=False)
    await again.join(resume=runner.worker, received=runner.received)
    await again.next()
    assert (await runner.closed()).code == link.UNKNOWN_WORKER
    await again.say(frames.Delta(run_id="r", text="over the second"))
    assert (await client.frame()).text == "over the second"


async def test_the_grace_ends_a_worker_once(world: World) -> None:
    client, runner = await world.pair()
    await runner.pipe.close(1006, "cut")
    gone = await client.gone()
    assert gone.reason == Gone.SOCKET_CLOSED
    assert not client.worker.send(frames.Shutdown(grace_seconds=1))
    late = await world.runner(join=False)
    await late.join(resume=runner.worker, received=runner.received)
    assert (await late.closed()).code == link.UNKNOWN_WORKER
    with pytest.raises(trio.WouldBlock):
        client.signals.receive_nowait()


@pytest.mark.parametrize("resume", [("rival", "gpu"), ("org", "here")])
async def test_another_credential_does_not_get_a_worker(world: World, resume: tuple[str, str]) -> None:
    _client, runner = await world.pair()
    thief = await world.runner(Joining(*resume), join=False)
    await thief.join(resume[1], resume=runner.worker, received=runner.received)
    assert (await thief.closed()).code in (link.UNKNOWN_WORKER, link.REFUSED)
    await runner.say(frames.Heartbeat())  # it has its place still


async def test_a_worker_that_is_killed_is_killed_there(world: World) -> None:
    client, runner = await world.pair()
    client.worker.kill()
    assert isinstance(await runner.next(), link.Kill)
    with suppress(PipeClosed):
        await runner.say(link.Ended(Gone.EXITED, "It was ended by signal 9.", None, 9))
    assert (await client.gone()).reason == Gone.EXITED
    assert (await runner.closed()).code == link.UNKNOWN_WORKER


async def test_files_are_believed_within_bounds_only(world: World) -> None:
    hostile: list[tuple[link.LinkMessage, str]] = [
        (link.Piece.of("output", "../escape", 0, b"x", last=True), Gone.SOCKET_CLOSED),
        (link.Piece.of("output", "", 0, b"x", last=True), Gone.SOCKET_CLOSED),
        (link.Piece.of("input", "x", 0, b"x", last=True), Gone.SOCKET_CLOSED),
        (link.Piece.of("session", "", 5, b"x", last=True), Gone.SOCKET_CLOSED),
        (link.Piece.of("session", "", 0, b"x" * 10_001, last=True), Gone.WORKSPACE_FULL),
        (link.Piece.of("output", "x", 0, b"x" * 50_001, last=True), Gone.WORKSPACE_FULL),
        (link.Prepare("none"), Gone.SOCKET_CLOSED),
    ]
    for message, reason in hostile:
        client, runner = await world.pair()
        await runner.say(message)
        if reason == Gone.WORKSPACE_FULL:
            assert isinstance(await runner.next(), link.Kill)
            with suppress(PipeClosed):
                await runner.say(link.Ended(Gone.EXITED, "killed"))
        assert (await client.gone()).reason == reason, message
    assert not list(Path(world.workspaces.path).parent.glob("escape"))


async def test_what_is_no_frame_ends_the_worker(world: World) -> None:
    client, runner = await world.pair()
    await runner.pipe.send('{"type": "delta"}')
    assert isinstance(await runner.next(), link.Kill)
    with suppress(PipeClosed):  # it may be over without our word
        await runner.say(link.Ended(Gone.EXITED, "killed"))
    assert (await client.gone()).reason == Gone.PROTOCOL


async def test_a_count_that_cannot_be_ends_the_link(world: World) -> None:
    client, runner = await world.pair()
    await runner.say(link.Received(1000))
    assert (await runner.closed()).code == link.REFUSED
    assert (await client.gone()).reason == Gone.SOCKET_CLOSED


async def test_who_does_not_read_is_ended(tmp_path: Path) -> None:
    limits = WorkerLimits(send_buffer_bytes=100_000, stop_grace_seconds=0.2, killed_seconds=0.2)
    async with running(World(tmp_path, limits=limits)) as world:
        client, _runner = await world.pair()
        frame = frames.Steer(run_id="r", message_id="m", content="x" * 9000)
        with trio.fail_after(SECONDS):
            while client.worker.send(frame):
                await trio.lowlevel.checkpoint()
        assert (await client.gone()).reason == Gone.STALLED


# --- the relay


class Door:
    """Two hosts, in this process."""

    def __init__(self, **hosts: RemoteWorkers) -> None:
        self.known = hosts

    async def hosts(self) -> list[str]:
        return list(self.known)

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        if host_id not in self.known:
            raise CannotReach("no such host")
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

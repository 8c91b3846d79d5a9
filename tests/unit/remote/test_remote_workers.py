"""Places, workers and the relay with scripted runners on pipes in memory: who gets what, and what is not believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.conversation.worker_port import (
    Gone,
    WorkerReady,
)
from lobu_actors.gateway.worker_door import Joining, PipeClosed, WorkerPipe, memory_pipe
from supervisor.workers.types import WorkerLimits
from tests.fakes.remote_host import GPU, SECONDS, Runner, World, running, until


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(World(tmp_path)) as found:
        yield found


@pytest.fixture
async def impatient_world(tmp_path: Path) -> AsyncIterator[World]:
    """One that does not wait long for a link that was lost."""
    async with running(World(tmp_path, grace=0.3)) as found:
        yield found


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
    await until(lambda: len(asked) >= 3)  # longer than its start may take
    assert all(asked)
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


async def test_who_says_nothing_in_time_may_come_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine or its edge stood still: a runner takes a refusal for the end."""
    monkeypatch.setattr("supervisor.remote.pool.JOIN_SECONDS", 0.05)
    runner = await world.runner(join=False)
    assert (await runner.closed()).code == link.NOBODY_THERE


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


async def test_the_grace_counts_from_the_last_cut(tmp_path: Path, mock_clock: trio.testing.MockClock) -> None:
    async with running(World(tmp_path, grace=1.0)) as world:
        client, runner = await world.pair()
        for _ in range(5):  # together longer than the grace, each for itself shorter
            await runner.pipe.close(1006, "cut")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(0.7)
            again = await world.runner(join=False)
            await again.join(resume=runner.worker, received=runner.received)
            await again.taken()
            again.received, runner = runner.received, again
            client.worker.send(frames.Steer(run_id="r", message_id="m", content="x"))
            assert (await runner.next())["type"] == "steer", "what is sent goes over the new connection"
        await runner.say(frames.Delta(run_id="r", text="still here"))
        assert (await client.frame()).text == "still here"
        mock_clock.rate = 1.0  # what ends takes its time


async def test_a_second_connection_replaces_the_first(world: World) -> None:
    client, runner = await world.pair()
    again = await world.runner(join=False)
    await again.join(resume=runner.worker, received=runner.received)
    await again.next()
    assert (await runner.closed()).code == link.UNKNOWN_WORKER
    await again.say(frames.Delta(run_id="r", text="over the second"))
    assert (await client.frame()).text == "over the second"


class HalfOpen:
    """A pipe whose other end is gone without a word: to close it takes as long as the test says."""

    def __init__(self, pipe: WorkerPipe) -> None:
        self.pipe = pipe
        self.closes, self.may_close = trio.Event(), trio.Event()

    async def send(self, text: str) -> None:
        await self.pipe.send(text)

    async def receive(self) -> str:
        return await self.pipe.receive()

    async def close(self, code: int, reason: str) -> None:
        self.closes.set()
        await self.may_close.wait()
        await self.pipe.close(code, reason)


async def test_of_two_connections_that_come_at_once_the_later_one_stays(world: World) -> None:
    """The runner has given the first of them up before the host was done with the one before both."""
    async with trio.open_nursery() as nursery:

        async def comes(*, half_open: bool = False) -> tuple[Runner, HalfOpen]:
            here, there = memory_pipe()
            held = HalfOpen(here)
            if not half_open:
                held.may_close.set()
            nursery.start_soon(world.workers.attach, held, GPU)
            return Runner(there), held

        client = world.start()
        runner, held = await comes(half_open=True)
        await runner.join()
        await runner.ready()
        assert isinstance(await client.next(), WorkerReady)
        first, _ = await comes()
        await first.join(resume=runner.worker, received=runner.received)
        await held.closes.wait()
        second, _ = await comes()
        await second.join(resume=runner.worker, received=runner.received)
        await trio.testing.wait_all_tasks_blocked()
        held.may_close.set()
        await second.taken()
        assert (await first.closed()).code == link.UNKNOWN_WORKER
        client.worker.send(frames.Steer(run_id="r", message_id="m", content="x"))
        assert (await second.next())["type"] == "steer"
        await second.say(frames.Delta(run_id="r", text="over the second"))
        assert (await client.frame()).text == "over the second"
        nursery.cancel_scope.cancel()


async def test_the_grace_ends_a_worker_once(impatient_world: World) -> None:
    world = impatient_world
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


async def test_files_are_believed_within_bounds_only(impatient_world: World) -> None:
    world = impatient_world
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


async def test_a_count_that_cannot_be_ends_the_link(impatient_world: World) -> None:
    world = impatient_world
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

"""A client waits for a turn's end. What else an actor does then, it does behind it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from lobu_actors.contract.frames import Frame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.apply import Effects
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.environment import Busy, Environment
from lobu_actors.conversation.messages import Note
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.state import Limits
from lobu_actors.conversation.worker_port import Deliver, Gone, WorkerGone, WorkerReady, WorkerRequest
from lobu_actors.conversation.writes import Writes
from lobu_actors.gateway.feed import Feed
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.timers import Timers
from supervisor.conversations import Conversations
from tests.fakes.edge_world import EdgeWorld

CRASHES = 4  # fewer than a loop; who runs next is a coin's toss, and must not be


class Workspace:
    """Empty."""

    async def prepare(self) -> None:
        return None

    async def write_session(self, data: bytes | None) -> None:
        return None


class Workspaces:
    def of(self, ref: ConversationRef) -> Any:
        return Workspace()


class Worker:
    def __init__(self, worker_id: str, deliver: Deliver) -> None:
        self.worker_id = worker_id
        self.deliver = deliver
        self.given = trio.Event()

    def send(self, frame: Frame) -> bool:
        self.given.set()
        return True

    def kill(self) -> None:
        pass

    def shutdown(self, grace_seconds: float) -> None:
        pass


class Workers:
    def __init__(self) -> None:
        self.started: list[Worker] = []
        self.asked = trio.Event()

    def start(self, request: WorkerRequest, deliver: Deliver) -> Worker:
        self.started.append(Worker(f"w{len(self.started)}", deliver))
        self.asked.set()
        return self.started[-1]

    def adopt(self, ref: ConversationRef, live_run: object, deliver: Deliver) -> None:
        return None


class Context(ChildContext):
    def __init__(self) -> None:
        self.stopping = trio.Event()

    def started(self, value: object = None) -> None:
        pass


async def follow(feed: Feed, happened: list[str]) -> None:
    known = feed.last_seq
    while True:
        await feed.waiting.wait(trio.current_time() + 1000)
        if feed.last_seq > known:
            known = feed.last_seq
            happened.append("read")


async def test_a_reader_has_the_end_before_it_is_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    happened: list[str] = []

    def log(self: Effects, note: Note) -> None:
        happened.append(note.event)

    def count(self: Writes, *_: object) -> None:
        happened.append("counted")

    monkeypatch.setattr(Effects, "_write", log)
    monkeypatch.setattr(Writes, "_count", count)
    world = await EdgeWorld.make()
    ref = await world.conversation()
    await world.store.register_host("h", name="h", link_url=None, version="1", ttl_seconds=60)
    workers, timers = Workers(), Timers()
    environment = Environment(
        host_id=lambda: "h",
        store=world.store,
        workers=workers,
        workspaces=Workspaces(),
        feeds=world.gateway.feeds,
        timers=timers,
        busy=Busy(),
        promises=Promises(),
        running=RunningClock(),
        clock_ms=lambda: 1,
        limits=Limits(),
        max_owed_turns=9,
        patience=Patience(5),
        handover_seconds=1,
    )
    conversations = Conversations(environment, idle_seconds=1000, max_actors=1)
    context = Context()
    with world.gateway.feeds.reading(ref) as feed:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timers.run, context)
            nursery.start_soon(conversations.run, context)
            nursery.start_soon(follow, feed, happened)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(CRASHES):
                workers.asked = trio.Event()
                await conversations.accepted(await world.message(ref))
                await workers.asked.wait()
                worker = workers.started[-1]
                await worker.deliver(WorkerReady(worker.worker_id, 1, 1.0, frozenset()))
                await worker.given.wait()
                happened.clear()
                await worker.deliver(WorkerGone(worker.worker_id, Gone.EXITED, "died", None, 9))
                await trio.testing.wait_all_tasks_blocked()
                assert happened == ["read", "counted", "worker gone", "attempt failed"], number
            nursery.cancel_scope.cancel()

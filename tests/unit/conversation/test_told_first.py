"""A client waits for a turn's end. What else an actor does then, it does behind it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from lobu_actors.conversation.apply import Effects
from lobu_actors.conversation.messages import Note
from lobu_actors.conversation.worker_port import Gone, WorkerGone
from lobu_actors.conversation.writes import Writes
from lobu_actors.gateway.feed import Feed
from tests.fakes.actor_world import actors
from tests.fakes.edge_world import EdgeWorld

CRASHES = 4  # fewer than a loop; who runs next is a coin's toss, and must not be


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
    with world.gateway.feeds.reading(ref) as feed:
        async with actors(world.store, feeds=world.gateway.feeds) as here, trio.open_nursery() as nursery:
            nursery.start_soon(follow, feed, happened)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(CRASHES):
                await here.conversations.accepted(await world.message(ref))
                worker = await here.workers.next()
                await worker.ready()
                await worker.given.wait()
                happened.clear()
                await worker.deliver(WorkerGone(worker.worker_id, Gone.EXITED, "died", None, 9))
                await trio.testing.wait_all_tasks_blocked()
                assert happened == ["read", "counted", "worker gone", "attempt failed"], number
            nursery.cancel_scope.cancel()

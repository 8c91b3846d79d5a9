"""A store that takes long for each statement makes turns slow, and ends none of them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
import trio
import trio.testing

from lobu_actors.contract.events import EventType
from lobu_actors.contract.frames import Complete, TurnFrame
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.worker_port import OutputEntry
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.moving import MOVED
from lobu_actors.store.records import (
    FILE_CHUNK_BYTES,
    FILES_KEY,
    Accepted,
    Activation,
    Agent,
    Direction,
    FinishRun,
    NewFile,
    NewTurn,
    Segment,
    StartRun,
    TurnEnd,
)
from supervisor.upkeep.deadlines import Deadlines
from supervisor.upkeep.sweeper import Sweeper
from tests.fakes import actor_world
from tests.fakes.actor_world import HOST, ActorWorld, actors

STATEMENT_SECONDS = 2.0
PIECES = 60
PIECE = b"x" * FILE_CHUNK_BYTES
REF = ConversationRef("acme", "echo", "echo_ann_acme")


class Slow(MemoryStore):
    """With pieces of files, of which there are most."""

    async def read_chunk(self, *args: Any) -> Any:
        await trio.sleep(STATEMENT_SECONDS)
        return await super().read_chunk(*args)

    async def append_chunk(self, *args: Any) -> Any:
        await trio.sleep(STATEMENT_SECONDS)
        return await super().append_chunk(*args)


class Workspace(actor_world.Workspace):
    """One large file is in output/."""

    async def append_input(self, name: str, data: bytes, offset: int) -> None:
        pass

    async def list_output(self) -> list[OutputEntry]:
        return [OutputEntry("large", PIECES * FILE_CHUNK_BYTES, 1)]

    async def read_output(self, entry: OutputEntry, offset: int, length: int) -> bytes:
        return PIECE[:length]


class Workspaces:
    def of(self, ref: ConversationRef) -> Any:
        return Workspace()


@pytest.fixture
async def store() -> MemoryStore:
    return await filled(Slow(clock=trio.current_time))


async def filled(store: MemoryStore) -> MemoryStore:
    await store.ensure_organization("acme")
    await store.apply_agents("acme", [Agent("acme", "echo", "echo", is_default=True)])
    await store.open_conversation(REF, "ann")
    return store


async def upkeep(here: ActorWorld, nursery: trio.Nursery) -> None:
    environment, conversations = here.environment, here.conversations
    deadlines = Deadlines(
        environment.store, lambda: HOST, environment.promises, environment.running, conversations.give_up
    )
    sweeper = Sweeper(
        environment.store,
        lambda: HOST,
        conversations.sweep,
        conversations.overdue,
        environment.promises.seems_stuck,
        interval_seconds=1,
        batch=10,
        older_than_seconds=2,
    )
    nursery.start_soon(deadlines.run, ChildContext("deadlines"))
    nursery.start_soon(sweeper.run, ChildContext("sweeper"))


class SlowLine(MemoryStore):
    """A session comes in pieces, of which the driver tells."""

    async def read_snapshot(self, ref: ConversationRef) -> bytes | None:
        for _ in range(PIECES):
            await trio.sleep(STATEMENT_SECONDS)
            if (tell := MOVED.get()) is not None:
                tell()
        return await super().read_snapshot(ref)


async def test_a_turn_whose_session_comes_over_a_slow_line(autojump_clock: trio.testing.MockClock) -> None:
    store = await filled(SlowLine(clock=trio.current_time))
    await keep_a_session(store)
    accepted = await store.accept_turn(NewTurn(REF, new_id(), "m2", "hi"), max_owed=9)
    assert isinstance(accepted, Accepted)
    async with actors(store) as here, trio.open_nursery() as nursery:
        await upkeep(here, nursery)
        worker = await here.worker_of(accepted.turn)
        with trio.fail_after(1.5 * PIECES * STATEMENT_SECONDS):
            await worker.given.wait()
        assert len(here.workers.started) == 1
        nursery.cancel_scope.cancel()


async def keep_a_session(store: MemoryStore) -> None:
    """Of a turn that ended on a host that is gone."""
    await store.register_host("before", name="before", link_url=None, version="1", ttl_seconds=600)
    accepted = await store.accept_turn(NewTurn(REF, new_id(), "m1", "hi"), max_owed=9)
    activation = await store.activate(REF, "before")
    assert isinstance(accepted, Accepted)
    assert isinstance(activation, Activation)
    lease, data = activation.lease, b'{"type": "session"}\n'
    assert await store.start_run(lease, StartRun("r0", (accepted.turn.turn_id,), 1, None, None)) is not None
    finish = FinishRun(
        "r0",
        RunStatus.COMPLETED,
        TurnStatus.COMPLETED,
        (TurnEnd(accepted.turn.turn_id, EventType.COMPLETE, {"messageId": "m1"}),),
        segment=Segment(1, 0, len(data), sha256(data).hexdigest(), data),
    )
    assert await store.finish_run(lease, finish)
    await store.release(lease)


async def test_a_turn_with_many_pieces_of_files_in_and_out(
    store: MemoryStore, autojump_clock: trio.testing.MockClock
) -> None:
    file = NewFile(REF, new_id(), Direction.IN, "large", "text/plain", 10_000)
    await store.begin_file(file)
    digest = sha256()
    for number in range(PIECES):
        await MemoryStore.append_chunk(store, "acme", file.file_id, number, PIECE)
        digest.update(PIECE)
    await store.seal_file("acme", file.file_id, size=PIECES * len(PIECE), sha256=digest.hexdigest())
    turn = NewTurn(REF, new_id(), "m1", "hi", payload={FILES_KEY: []}, file_ids=(file.file_id,))
    accepted = await store.accept_turn(turn, max_owed=9)
    assert isinstance(accepted, Accepted)
    async with actors(store, workspaces=Workspaces()) as here, trio.open_nursery() as nursery:
        await upkeep(here, nursery)
        worker = await here.worker_of(accepted.turn)
        with trio.fail_after(2 * PIECES * STATEMENT_SECONDS):
            await worker.given.wait()
        [frame] = worker.frames
        assert isinstance(frame, TurnFrame)
        await worker.says(Complete(run_id=frame.run_id))
        limit = trio.current_time() + 2 * PIECES * STATEMENT_SECONDS
        with trio.fail_at(limit), here.environment.feeds.reading(REF) as feed:
            while not feed.last_seq:
                await feed.waiting.wait(limit)
        log = await store.read_events(REF, 1, limit=9)
        assert [event.type for event in log] == [EventType.COMPLETE]
        assert [file["name"] for file in log[0].data["files"]] == ["large"]
        assert len(here.workers.started) == 1
        nursery.cancel_scope.cancel()

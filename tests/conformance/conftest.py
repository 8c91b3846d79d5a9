"""Runs every test of this folder over both stores, and gives them what they all begin with."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.protocol import Store
from lobu_actors.store.records import Accepted, Activation, FinishRun, Lease, NewTurn, Segment, StartRun, Turn, TurnEnd


@pytest.fixture(params=["memory", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("database_url") if request.param == "postgres" else None


@pytest.fixture
async def store(store_url: str | None) -> AsyncIterator[Store]:
    store = MemoryStore() if store_url is None else PostgresStore.connect(store_url)
    yield store
    store.close()


@attrs.frozen
class Owner:
    """A conversation, and a host that holds its lease; with shorthands for what a test only passes through."""

    store: Store
    ref: ConversationRef
    lease: Lease

    async def accept(self, message_id: str | None = None, *, max_owed: int = 100) -> Turn:
        accepted = await self.store.accept_turn(new_turn(self.ref, message_id), max_owed=max_owed)
        assert isinstance(accepted, Accepted)
        return accepted.turn

    async def start(self, *turns: Turn, run_id: str | None = None) -> str:
        run_id = run_id or new_id()
        run = StartRun(run_id, tuple(turn.turn_id for turn in turns), turns[0].attempt, 1, 2.5)
        assert await self.store.start_run(self.lease, run) is not None
        return run_id


def new_turn(ref: ConversationRef, message_id: str | None = None) -> NewTurn:
    return NewTurn(ref, new_id(), message_id or new_id(), "hello", payload={"platform": "test"})


def finish(run_id: str | None, *turns: Turn, segment: Segment | None = None) -> FinishRun:
    """A completed end of `turns`."""
    ids = [turn.message_id for turn in turns]
    ends = tuple(
        TurnEnd(turn.turn_id, EventType.COMPLETE, events.complete(turn.message_id, ids, "done", None, 1))
        for turn in turns
    )
    return FinishRun(run_id, RunStatus.COMPLETED, TurnStatus.COMPLETED, ends, segment=segment, attempt=1, text_offset=4)


def segment(data: bytes, base: bytes = b"", generation: int = 1) -> Segment:
    whole = base + data
    return Segment(generation, len(base), len(whole), hashlib.sha256(whole).hexdigest(), data)


async def alive(store: Store, host_id: str, *, ttl_seconds: float = 60) -> str:
    await store.register_host(host_id, name=host_id, link_url=None, version="1", ttl_seconds=ttl_seconds)
    return host_id


@attrs.frozen
class Helpers:
    """Module functions cannot be imported from a conftest; a fixture hands them out."""

    new_turn = staticmethod(new_turn)
    finish = staticmethod(finish)
    segment = staticmethod(segment)
    alive = staticmethod(alive)


@pytest.fixture
def helpers() -> Helpers:
    return Helpers()


@pytest.fixture
async def owner(store: Store, make_scene: Callable[..., Awaitable[object]]) -> Owner:
    """A fresh conversation held by host `h1`."""
    scene = await make_scene(store)
    await alive(store, "h1")
    activation = await store.activate(scene.ref, "h1")  # type: ignore[attr-defined]
    assert isinstance(activation, Activation)
    return Owner(store, activation.conversation.ref, activation.lease)

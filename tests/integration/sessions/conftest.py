"""One conversation's session on a real store and a real disk, with the worker's writing done by the test."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.environment import Environment
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.session import Session
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Accepted, Activation, FinishRun, Lease, NewTurn, Segment, StartRun, TurnEnd
from supervisor.workspaces.workspace import HostWorkspaces

HOST = "h1"


@attrs.define
class Place:
    """A conversation whose lease we hold, and its session as an actor has it."""

    store: PostgresStore
    lease: Lease
    session: Session
    file: Path
    environment: Environment
    run_id: str = ""
    turn_id: str = ""
    message_id: str = ""

    @property
    def ref(self) -> ConversationRef:
        return self.lease.ref

    async def begin(self) -> None:
        """Up to the moment at which the worker gets the turn."""
        self.run_id, self.turn_id, self.message_id = new_id(), new_id(), new_id()
        accepted = await self.store.accept_turn(NewTurn(self.ref, self.turn_id, self.message_id, "hi"), max_owed=9)
        assert isinstance(accepted, Accepted)
        await self.session.lay_out()
        run = StartRun(self.run_id, (self.turn_id,), 1, None, None)
        assert await self.store.start_run(self.lease, run) is not None

    async def complete(self, status: RunStatus = RunStatus.COMPLETED) -> Segment | None:
        """As the actor does after the worker's last frame; gives what was stored."""
        completed = status is RunStatus.COMPLETED
        segment = await self.session.segment(self.run_id) if completed else None
        kind = EventType.COMPLETE if completed else EventType.CANCELLED
        data = events.complete(self.message_id, [self.message_id], "", None, 1)
        end = FinishRun(self.run_id, status, TurnStatus(status), (TurnEnd(self.turn_id, kind, data),), segment=segment)
        assert await self.store.finish_run(self.lease, end) is not None
        if completed:
            await self.session.stored(self.run_id, segment)
        return segment

    async def turn(self, appended: bytes) -> Segment | None:
        await self.begin()
        self.append(appended)
        return await self.complete()

    def append(self, data: bytes) -> None:
        with self.file.open("ab") as file:
            file.write(data)

    async def activated_again(self) -> Place:
        """The same conversation after its actor was lost: what a successor knows is what the store says."""
        return await activate(self.store, self.environment, self.ref)

    async def stored(self) -> bytes | None:
        return await self.store.read_snapshot(self.ref)


async def activate(store: PostgresStore, environment: Environment, ref: ConversationRef) -> Place:
    activation = await store.activate(ref, HOST)
    assert isinstance(activation, Activation)
    workspaces = cast(HostWorkspaces, environment.workspaces)
    _, file = workspaces.ensure(ref)
    session = Session(ref, environment, workspaces.of(ref), activation.conversation.generation, activation.snapshot)
    return Place(store, activation.lease, session, Path(file), environment)


@pytest.fixture
def open_place(store: PostgresStore, make_scene: Callable[..., Awaitable[Any]], tmp_path: Path) -> Any:
    """`await open_place(**changes)`: a place on the real store; changes go into the Environment."""

    async def make(wrap_store: Callable[[PostgresStore], Any] = lambda store: store, **changes: Any) -> Place:
        scene = await make_scene(store)
        await store.register_host(HOST, name=HOST, link_url=None, version="1", ttl_seconds=600)
        nothing: Any = None
        environment = Environment(
            host_id=lambda: HOST,
            store=wrap_store(store),
            workers=nothing,
            workspaces=HostWorkspaces(tmp_path / "workspaces"),
            feeds=nothing,
            timers=nothing,
            busy=nothing,
            promises=Promises(),
            running=RunningClock(),
            clock_ms=lambda: 1,
            limits=nothing,
            max_owed_turns=9,
            patience=Patience(5),
            handover_seconds=1,
            **changes,
        )
        return await activate(store, environment, scene.ref)

    return make


@pytest.fixture
async def place(open_place: Any) -> Place:
    return await open_place()


@pytest.fixture
def resident_bytes() -> Callable[[], int]:
    def read() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    return read

"""Conversation actors over a store, with workers and workspaces that are the test's own: no process, no file, no
spawner. Who uses it says what workers do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

from lobu_actors.contract.frames import Frame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.environment import Busy, Environment
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.state import Limits
from lobu_actors.conversation.worker_port import Deliver, WorkerFrames, WorkerReady, WorkerRequest
from lobu_actors.gateway.feed import Feeds
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.records import Turn
from supervisor.conversations import Conversations

HOST = "h"


class Workspace:
    """Empty."""

    async def prepare(self) -> None:
        return None

    async def write_session(self, data: bytes | None) -> None:
        return None

    async def read_session(self) -> None:
        return None

    async def list_output(self) -> list[Any]:
        return []


class Workspaces:
    def of(self, ref: ConversationRef) -> Any:
        return Workspace()


class Worker:
    def __init__(self, worker_id: str, deliver: Deliver) -> None:
        self.worker_id = worker_id
        self.deliver = deliver
        self.frames: list[Frame] = []
        self.given = trio.Event()
        self.killed = trio.Event()

    def send(self, frame: Frame) -> bool:
        self.frames.append(frame)
        self.given.set()
        return True

    def kill(self) -> None:
        self.killed.set()

    def shutdown(self, grace_seconds: float) -> None:
        self.killed.set()

    async def ready(self) -> None:
        await self.deliver(WorkerReady(self.worker_id, 1, 1.0, frozenset()))

    async def says(self, *frames: Frame) -> None:
        await self.deliver(WorkerFrames(self.worker_id, frames))


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

    async def next(self) -> Worker:
        """The one that is asked for next."""
        await self.asked.wait()
        self.asked = trio.Event()
        return self.started[-1]


@attrs.define
class ActorWorld:
    conversations: Conversations
    environment: Environment
    workers: Workers
    stopping: trio.Event  # set it for an ordered stop

    async def worker_of(self, turn: Turn) -> Worker:
        """The worker that is asked for when this turn is told of, once it is ready."""
        await self.conversations.accepted(turn)
        worker = await self.workers.next()
        await worker.ready()
        return worker


@asynccontextmanager
async def actors(store: Any, **changes: Any) -> AsyncIterator[ActorWorld]:
    """A host that lives on `store`; `changes` go into its Environment."""
    await store.register_host(HOST, name=HOST, link_url=None, version="1", ttl_seconds=600)
    workers, timers = Workers(), Timers()
    environment = Environment(
        **{
            "host_id": lambda: HOST,
            "store": store,
            "workers": workers,
            "workspaces": Workspaces(),
            "feeds": Feeds(lambda: 1, timers),
            "timers": timers,
            "busy": Busy(),
            "promises": Promises(),
            "running": RunningClock(),
            "clock_ms": lambda: 1,
            "limits": Limits(),
            "max_owed_turns": 9,
            "patience": Patience(5),
            "handover_seconds": 1,
        }
        | changes
    )
    conversations = Conversations(environment, idle_seconds=1000, max_actors=9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run, ChildContext("timers"))
        context = ChildContext("conversations")
        nursery.start_soon(conversations.run, context)
        await trio.testing.wait_all_tasks_blocked()
        yield ActorWorld(conversations, environment, workers, context.stopping)
        nursery.cancel_scope.cancel()

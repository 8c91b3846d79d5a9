"""A host's remote workers, and runners played by hand over pipes in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import trio

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import (
    WorkerFrames,
    WorkerGone,
    WorkerReady,
    WorkerRequest,
    WorkerSignal,
)
from lobu_actors.gateway.worker_door import Joining, PipeClosed, WorkerPipe
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
    def __init__(self, folder: Path, grace: float = 60.0, limits: WorkerLimits | None = None) -> None:
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

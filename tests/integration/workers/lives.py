"""Supervisors that die, one after another over one folder, all in the test's own process.

`Life.die` does what SIGKILL does, as far as anybody outside can see: the descriptors are closed, nothing else is done.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from lobu_actors.contract.frames import Delta, Frame, Reattach, TurnFrame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus
from lobu_actors.conversation.worker_port import WorkerFrames, WorkerReady, WorkerRequest, WorkerSignal
from lobu_actors.store.records import RunRecord
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.environment import worker_environment
from supervisor.workers.process import WorkerProcess
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerType
from supervisor.workspaces.workspace import HostWorkspaces

PATIENCE = 60.0
REF = ConversationRef("org", "agent", "conversation-1")
RUN = "run-1"


class Context:
    def __init__(self) -> None:
        self.stopping = trio.Event()
        self.up = trio.Event()

    def started(self, value: object = None) -> None:
        self.up.set()


class MortalChild:
    """What is left of a process to a link that may be dead: nothing."""

    def __init__(self, link: MortalLink) -> None:
        self._link = link

    def kill(self) -> None:
        if not self._link.is_dead:
            self._link.child.kill()

    async def wait(self) -> None:
        if not self._link.is_dead:
            await self._link.child.wait()


class MortalLink(SpawnerLink):
    """Its end may be no end of its spawner."""

    is_dead = False
    closes: Callable[[], None]

    async def _start(self):  # type: ignore[no-untyped-def, override]
        self.child = await super()._start()
        return MortalChild(self)

    def _forget_child(self) -> None:
        """It is this process's child only because all lives are; nobody waits for it any more."""
        if (child := getattr(self, "child", None)) is not None:
            child._proc.returncode = 0
            child._pidfd.close()

    def die(self) -> None:
        self.is_dead = True
        self._forget_child()
        connection = self._connection
        assert connection is not None
        connection.is_lost, connection.pid = True, 0
        self.closes = connection._link.close
        self._folder = self._records._folder = self._folder.with_name("of-a-dead-one")


class Life:
    """One supervisor of this folder. `signals` are of the one worker that it started or adopted last."""

    def __init__(self, folder: Path, types: dict[str, WorkerType], abandon_seconds: float = 60.0) -> None:
        self.link = MortalLink(folder / "spawner", abandon_seconds=abandon_seconds)
        self.workspaces = HostWorkspaces(folder / "workspaces")
        self.workers = WorkerProcesses(self.link, types, self.workspaces, _environment_of)
        self.contexts = Context(), Context()
        self.stopped = trio.Event()
        self.failures: list[BaseException] = []
        self.closing: list[Callable[[], None]] = []  # once no task waits for these descriptors
        self.worker: WorkerProcess
        self._nursery: trio.Nursery

    def start(self, worker: str, ref: ConversationRef = REF) -> WorkerProcess:
        self._send, self.signals = trio.open_memory_channel[WorkerSignal](1_000_000)
        self.worker = self.workers.start(WorkerRequest(ref, worker, {}, {}, PATIENCE), self._send.send)
        return self.worker

    async def begin(self, worker: str, text: str) -> RunRecord:
        """A worker with a turn; gives what the store would know of it."""
        self.start(worker)
        ready = await self.next()
        assert isinstance(ready, WorkerReady), ready
        self.worker.send(
            TurnFrame(run_id=RUN, attempt=1, messages=[{"messageId": "m", "content": text}], run_token="t")
        )
        return RunRecord(RUN, ("t",), RunStatus.LIVE, "h", 1, 1, ready.pid, ready.started_at)

    def adopt(self, record: RunRecord) -> bool:
        self._send, self.signals = trio.open_memory_channel[WorkerSignal](1_000_000)
        adopted = self.workers.adopt(REF, record, self._send.send)
        if adopted is None:
            return False
        assert isinstance(adopted.worker, WorkerProcess)
        self.worker = adopted.worker
        return True

    async def next(self) -> WorkerSignal:
        with trio.fail_after(PATIENCE):
            return await self.signals.receive()

    async def frames_until(self, kind: type[Frame]) -> list[Frame]:
        found: list[Frame] = []
        while not any(isinstance(frame, kind) for frame in found):
            signal = await self.next()
            assert isinstance(signal, WorkerFrames), signal
            found += signal.frames
        return found

    async def text_until(self, kind: type[Frame]) -> str:
        """Ask for the whole text, and follow it to a frame of this kind."""
        self.worker.send(Reattach(run_id=RUN, text_offset=0))
        found: list[Frame] = []
        while not any(isinstance(frame, Delta) and frame.text_offset == 0 for frame in found):
            found += await self.frames_until(kind)
        pieces = [frame for frame in found if isinstance(frame, Delta)]
        first = [frame.text_offset for frame in pieces].index(0)
        return "".join(frame.text for frame in pieces[first:])

    def die(self, *, read_bytes: int = 0) -> None:
        """`read_bytes` of the worker's were read already, and go with it."""
        for worker in self.workers._workers.values():
            process, worker._process = worker._process, None
            if process is not None:
                if read_bytes:
                    select.select([process.socket], [], [], PATIENCE)
                    process.socket.recv(read_bytes)
                self.closing.append(process.close)
        self.closing += [process.close for process, _label in self.workers._left.values()]
        self.workers._left.clear()
        self.link.die()
        self.closing.append(self.link.closes)
        self._nursery.cancel_scope.cancel()

    async def _serve(self) -> None:
        await self.workers.run(self.contexts[1])
        self.stopped.set()

    async def _keep_link(self) -> None:
        """As the supervisor tree does."""
        while not self.contexts[0].stopping.is_set():
            context = Context()
            context.up, context.stopping = self.contexts[0].up, self.contexts[0].stopping
            try:
                await self.link.run(context)
            except Exception as error:
                self.failures.append(error)


@asynccontextmanager
async def life(folder: Path, types: dict[str, WorkerType], abandon_seconds: float = 60.0) -> AsyncIterator[Life]:
    """Stopped in order at the end, unless it died."""
    found = Life(folder, types, abandon_seconds)
    links, workers = found.contexts
    async with trio.open_nursery() as nursery:
        found._nursery = nursery
        nursery.start_soon(found._keep_link)
        with trio.fail_after(PATIENCE):
            await links.up.wait()
            nursery.start_soon(found._serve)
            await workers.up.wait()
        try:
            yield found
        except BaseException:
            nursery.cancel_scope.cancel()
            raise
        if not found.link.is_dead:
            workers.stopping.set()
            with trio.fail_after(PATIENCE):
                await found.stopped.wait()
            links.stopping.set()
    for close in found.closing:
        close()
    found.workspaces.close()


def _environment_of(workspace: str, token: str) -> dict[str, str]:
    return worker_environment(workspace=workspace, dispatcher_url="http://public.test", token=token, worker_env={})

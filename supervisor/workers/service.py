"""All worker processes of this host: starts them, counts them, ends them when the service stops.

Implements the conversation's port `Workers`, as a child of the supervisor tree whose nursery holds one task for each
worker. Owns the limit on living workers and what a worker is given at its start. Knows nothing of turns.
"""

import secrets
import time
from collections.abc import Callable, Collection, Container, Mapping
from functools import partial
from typing import Protocol

import structlog
import trio

from lobu_actors.contract.frames import Hello
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.conversation.worker_port import Adopted, Deliver, WorkerRequest
from lobu_actors.store.records import RunRecord
from supervisor.spawner.connection import SpawnedProcess, SpawnFailed
from supervisor.spawner.link import Context, SpawnerLink
from supervisor.spawner.protocol import EXEC, ZYGOTE, Preload, Spawn
from supervisor.workers.containment import Containment
from supervisor.workers.info import WorkerInfo, oldest
from supervisor.workers.label import Label, decode, encode
from supervisor.workers.process import Launch, WorkerProcess
from supervisor.workers.slots import Slots
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workers.warm import WarmPool
from supervisor.workspaces.workspace import workspace_name

_log = structlog.get_logger()


class WorkersNotRunning(RuntimeError):
    """`start` was called while the service is not running: no task could tell of the worker's end."""


class Folders(Protocol):
    """Where a conversation's worker works; `HostWorkspaces` is one."""

    def ensure(self, ref: ConversationRef) -> tuple[str, str]:
        """Make the workspace if absent; gives its path and the session file's. Raises OSError."""
        ...

    async def make_room(self, ref: ConversationRef) -> None:
        """Remove what an earlier worker left, all but the session, if that is over the limit. Raises OSError."""
        ...

    def link_of(self, worker_id: str) -> str:
        """The workspace's name for a worker that is started before it has a conversation."""
        ...

    def lead(self, worker_id: str, ref: ConversationRef) -> tuple[str, str]:
        """Have that name lead to a workspace; gives it and the session file's path behind it. Raises OSError."""
        ...

    def keep_links(self, worker_ids: Collection[str]) -> None:
        """Of these workers' only; for the start, since a supervisor that died may have left more."""
        ...

    def remove_link(self, worker_id: str) -> None:
        """That name is not needed any more, if there was one."""
        ...


# The environment of a worker from its workspace and token.
EnvironmentOf = Callable[[str, str], dict[str, str]]


class WorkerProcesses:
    """Implements `Workers`. `start` may be called once `run` has said that it started."""

    def __init__(
        self,
        link: SpawnerLink,
        types: Mapping[str, WorkerType],
        folders: Folders,
        environment_of: EnvironmentOf,
        limits: WorkerLimits | None = None,
        containment: Containment | None = None,
    ) -> None:
        """Without `containment`, workers have this process's rights and limits."""
        self._link = link
        self._containment = containment
        self._types = types
        self._folders = folders
        self._environment_of = environment_of
        self._limits = limits or WorkerLimits()
        self._slots = Slots(self._limits.max_workers, self._make_room)
        self._workers: dict[str, WorkerProcess] = {}
        self._tokens: dict[str, str] = {}
        self._nursery: trio.Nursery | None = None
        self._warm = WarmPool(link, types, self._launch_idle, self._release, self._slots, self._limits)
        # Left by an earlier supervisor, and not asked for yet.
        self._left: dict[ConversationRef, tuple[SpawnedProcess, Label]] = {}
        self._stopping = False
        self._all_gone = trio.Event()
        # Has the worker of one of these conversations end, if one is at rest; nobody knows here which of them are.
        self.end_one_at_rest: Callable[[Container[ConversationRef]], None] = lambda refs: None

    async def run(self, context: Context) -> None:
        """Serve until an ordered stop, which takes at most the stop grace, twice the killed time and a second."""
        self._stopping = False
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._take_left()
                nursery.start_soon(self._warm.run)
                nursery.start_soon(self._end_unclaimed)
                nursery.start_soon(self._slots.run)
                self._preload()
                context.started()
                await context.stopping.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    def start(self, request: WorkerRequest, deliver: Deliver) -> WorkerProcess:
        """Begin to start a worker; every failure comes as `WorkerGone`. Raises WorkersNotRunning."""
        if self._nursery is None:
            raise WorkersNotRunning("workers cannot be started now")
        self._end_left(request.ref)
        warm = self._warm.take(request.worker)
        worker_id = new_id() if warm is None else warm.worker_id
        label = Label(request.ref, request.worker, secrets.token_urlsafe(32) if warm is None else warm.token)
        worker = WorkerProcess(
            worker_id,
            request,
            label,
            partial(self._assign if warm else self._launch, worker_id, request, label),
            self._link,
            self._limits,
            self._slots,
            deliver,
            None if warm is None else warm.process,
        )
        self._begin(worker, label)
        return worker

    def adopt(self, ref: ConversationRef, live_run: RunRecord | None, deliver: Deliver) -> Adopted | None:
        """See `Workers.adopt`. A worker is known by its pid and start time, as the run has them."""
        process, label = self._left.get(ref, (None, None))
        if process is None or label is None or live_run is None or self._nursery is None:
            self._end_left(ref)
            return None
        if process.exit is not None or (process.pid, process.started_at) != (
            live_run.worker_pid,
            live_run.worker_started_at,
        ):
            self._end_left(ref)
            return None
        del self._left[ref]
        request = WorkerRequest(ref, label.worker, {}, {}, 0.0)
        worker = WorkerProcess(
            process.worker_id, request, label, process, self._link, self._limits, self._slots, deliver
        )
        self._begin(worker, label)
        return Adopted(worker, process.pid, process.started_at, frozenset(label.capabilities or ()))

    def left_behind(self) -> list[ConversationRef]:
        """The conversations whose workers an earlier supervisor left, and that nobody has adopted yet."""
        return list(self._left)

    def end_left_behind(self, ref: ConversationRef) -> None:
        """Nobody here will adopt it."""
        self._end_left(ref)

    def token_of(self, worker_id: str) -> str | None:
        """The WORKER_TOKEN that a living worker was given."""
        return self._tokens.get(worker_id)

    def __len__(self) -> int:
        """Those that were asked for and are not gone, idle ones not counted."""
        return len(self._workers)

    @property
    def idle(self) -> int:
        """Workers that are kept ready and belong to nobody yet."""
        return self._warm.idle

    def snapshot(self) -> tuple[WorkerInfo, ...]:
        """All workers that were asked for and are not gone, in the order of asking."""
        now = time.monotonic()
        return tuple(_info(worker, now) for worker in self._workers.values() if worker.state != "gone")

    def oldest(self, organization_id: str, most: int) -> list[WorkerInfo]:
        """One organization's; as `snapshot`, which looks at all."""
        return oldest(self._workers.values(), organization_id, most, _info)

    def end_for_its_workspace(self, worker_id: str, detail: str) -> None:
        """The workspace that this worker works in was found to be over the limit."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.end_for_its_workspace(detail)

    def changed(self, names: Collection[str]) -> None:
        """These types are others now, or their environment is: what was prepared for them is made anew."""
        for name in names:
            self._warm.changed(name)
        if names:
            self._preload()

    def room(self, is_busy: Callable[[ConversationRef], bool]) -> int:
        """How many further ones could be had at once: one whose conversation runs nothing ends for another."""
        working = (worker.state != "ready" or is_busy(worker.request.ref) for worker in self._workers.values())
        return max(0, self._limits.max_workers - sum(working))

    def waiting(self, seconds: float) -> list[ConversationRef]:
        """Whose worker was asked for so long ago and has no place yet, in the order of asking."""
        before = time.monotonic() - seconds
        workers = self._workers.values()
        return [worker.request.ref for worker in workers if worker.state == "waiting" and worker.asked_at <= before]

    def _make_room(self) -> None:
        """There is no slot for one that is asked for: another one ends, a warm one rather than a conversation's."""
        if not self._warm.make_room():
            self.end_one_at_rest({worker.request.ref for worker in self._workers.values() if worker.state == "ready"})

    def _begin(self, worker: WorkerProcess, label: Label) -> None:
        assert self._nursery is not None
        self._workers[worker.worker_id] = worker
        self._tokens[worker.worker_id] = label.token
        self._nursery.start_soon(self._run, worker)

    def _take_left(self) -> None:
        """Workers that an earlier supervisor had: kept for their conversations' actors, if one can talk to them."""
        for process in self._link.take_running():
            label = decode(process.label)
            if label is None or not label.can_go_on:
                _log.info("worker.not_adopted", worker_id=process.worker_id, pid=process.pid)
                self._end_process(process)
                continue
            self._end_left(label.ref)
            self._left[label.ref] = (process, label)
            if self._containment is not None:
                self._containment.adopt(process.worker_id, label.worker, workspace_name(label.ref))
        self._folders.keep_links([process.worker_id for process, _label in self._left.values()])
        if self._containment is not None:
            self._containment.settle()

    async def _end_unclaimed(self) -> None:
        await trio.sleep(self._limits.unclaimed_seconds)
        for ref in list(self._left):
            self._end_left(ref)

    def _end_left(self, ref: ConversationRef) -> None:
        process, _label = self._left.pop(ref, (None, None))
        if process is not None:
            self._end_process(process)

    def _end_process(self, process: SpawnedProcess) -> None:
        self._link.end(process)
        process.close()
        self._release(process.worker_id)

    def _release(self, worker_id: str) -> None:
        self._folders.remove_link(worker_id)
        if self._containment is not None:
            self._containment.release(worker_id)

    async def _run(self, worker: WorkerProcess) -> None:
        try:
            if self._stopping:
                worker.kill()
            await worker.run()
            await trio.lowlevel.checkpoint()  # who was just told of its end comes first, in whatever order trio runs us
        finally:
            del self._workers[worker.worker_id]
            self._tokens.pop(worker.worker_id, None)
            self._release(worker.worker_id)
            if not self._workers:
                self._all_gone.set()

    async def _launch(self, worker_id: str, request: WorkerRequest, label: Label) -> Launch:
        kind = self._types.get(request.worker)
        if kind is None:
            raise SpawnFailed(f"This host has no worker type {request.worker!r}.")
        await self._folders.make_room(request.ref)
        workspace, session_file = self._folders.ensure(request.ref)
        environment = self._environment_of(workspace, label.token)
        spawn = Spawn(worker_id, kind.argv, environment, workspace, encode(label), _how(kind))
        if self._containment is not None:
            spawn = await self._containment.contain(kind, spawn)
        return Launch(spawn, _hello(worker_id, request, workspace, session_file))

    async def _launch_idle(self, kind: WorkerType, worker_id: str, token: str) -> Spawn:
        environment = self._environment_of(self._folders.link_of(worker_id), token)
        spawn = Spawn(worker_id, kind.argv, environment, "/", kind=_how(kind))
        return spawn if self._containment is None else await self._containment.contain_idle(kind, spawn)

    async def _assign(self, worker_id: str, request: WorkerRequest, label: Label) -> Launch:
        """An idle worker becomes this conversation's: its workspace's name leads to this one's from now on."""
        await self._folders.make_room(request.ref)
        workspace, _session_file = self._folders.ensure(request.ref)
        if self._containment is not None:
            await self._containment.assign(worker_id, workspace)
        link, session_file = self._folders.lead(worker_id, request.ref)
        self._link.relabel(worker_id, encode(label))
        return Launch(None, _hello(worker_id, request, link, session_file))

    def _preload(self) -> None:
        zygotes = [kind for kind in self._types.values() if kind.zygote]
        self._link.preload([Preload(kind.argv, self._environment_of("", "")) for kind in zygotes])

    async def _stop(self) -> None:
        """Ask all to end, then kill; returns when all are gone or the time for it is over."""
        self._stopping = True
        for ref in list(self._left):
            self._end_left(ref)
        for worker in list(self._workers.values()):
            worker.shutdown(self._limits.stop_grace_seconds)
        with trio.move_on_after(self._limits.stop_grace_seconds):
            await self._wait_until_gone()
        for worker in list(self._workers.values()):
            worker.kill()
        with trio.move_on_after(2 * self._limits.killed_seconds):
            await self._wait_until_gone()
        if self._workers:
            _log.warning("workers.not_gone", workers=sorted(self._workers))

    async def _wait_until_gone(self) -> None:
        while self._workers:
            self._all_gone = trio.Event()
            await self._all_gone.wait()


def _info(worker: WorkerProcess, now: float) -> WorkerInfo:
    request = worker.request
    return WorkerInfo(worker.worker_id, request.worker, worker.pid, request.ref, now - worker.asked_at, worker.state)


def _how(kind: WorkerType) -> str:
    return ZYGOTE if kind.zygote else EXEC


def _hello(worker_id: str, request: WorkerRequest, workspace: str, session_file: str) -> Hello:
    return Hello(
        worker_id=worker_id,
        organization_id=request.ref.organization_id,
        agent_id=request.ref.agent_id,
        conversation_id=request.ref.conversation_id,
        workspace=workspace,
        session_file=session_file,
        settings=request.settings,
        deadlines=dict(request.deadlines),
    )

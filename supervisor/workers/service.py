"""All worker processes of this host: starts them, counts them, ends them when the service stops.

Implements the conversation's port `Workers`, as a child of the supervisor tree whose nursery holds one task for each
worker. Owns the limit on living workers and what a worker is given at its start. Knows nothing of turns.
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
import structlog
import trio

from lobu_actors.contract.frames import Hello
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.conversation.worker_port import Deliver, WorkerRequest
from supervisor.spawner.connection import SpawnFailed
from supervisor.spawner.link import Context, SpawnerLink
from supervisor.spawner.protocol import Spawn
from supervisor.workers.process import Launch, WorkerProcess
from supervisor.workers.types import WorkerLimits, WorkerType

_log = structlog.get_logger()


class WorkersNotRunning(RuntimeError):
    """`start` was called while the service is not running: no task could tell of the worker's end."""


class Folders(Protocol):
    """Where a conversation's worker works; `HostWorkspaces` is one."""

    def ensure(self, ref: ConversationRef) -> tuple[str, str]:
        """Make the workspace if absent; gives its path and the session file's. Raises OSError."""
        ...


# The environment of a worker from its workspace and token.
EnvironmentOf = Callable[[str, str], dict[str, str]]


@attrs.frozen
class WorkerInfo:
    """One line of a status listing. `state` is starting or ready; `age_seconds` counts from the asking."""

    worker_id: str
    worker: str
    pid: int | None
    ref: ConversationRef
    age_seconds: float
    state: str


class WorkerProcesses:
    """Implements `Workers`. `start` may be called once `run` has said that it started."""

    def __init__(
        self,
        link: SpawnerLink,
        types: Mapping[str, WorkerType],
        folders: Folders,
        environment_of: EnvironmentOf,
        limits: WorkerLimits | None = None,
    ) -> None:
        self._link = link
        self._types = types
        self._folders = folders
        self._environment_of = environment_of
        self._limits = limits or WorkerLimits()
        self._slots = trio.Semaphore(self._limits.max_workers)
        self._workers: dict[str, WorkerProcess] = {}
        self._tokens: dict[str, str] = {}
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._all_gone = trio.Event()

    async def run(self, context: Context) -> None:
        """Serve until an ordered stop, which takes at most the stop grace, twice the killed time and a second."""
        self._stopping = False
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
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
        worker_id = new_id()
        worker = WorkerProcess(
            worker_id,
            request,
            lambda: self._launch(worker_id, request),
            self._link,
            self._limits,
            self._slots,
            deliver,
        )
        self._workers[worker_id] = worker
        self._nursery.start_soon(self._run, worker)
        return worker

    def token_of(self, worker_id: str) -> str | None:
        """The WORKER_TOKEN that a living worker was given."""
        return self._tokens.get(worker_id)

    def snapshot(self) -> tuple[WorkerInfo, ...]:
        """All workers that were asked for and are not gone, in the order of asking."""
        now = time.monotonic()
        return tuple(
            WorkerInfo(
                worker.worker_id,
                worker.request.worker,
                worker.pid,
                worker.request.ref,
                now - worker.asked_at,
                worker.state,
            )
            for worker in self._workers.values()
            if worker.state != "gone"
        )

    async def _run(self, worker: WorkerProcess) -> None:
        try:
            if self._stopping:
                worker.kill()
            await worker.run()
        finally:
            del self._workers[worker.worker_id]
            self._tokens.pop(worker.worker_id, None)
            if not self._workers:
                self._all_gone.set()

    def _launch(self, worker_id: str, request: WorkerRequest) -> Launch:
        kind = self._types.get(request.worker)
        if kind is None:
            raise SpawnFailed(f"This host has no worker type {request.worker!r}.")
        workspace, session_file = self._folders.ensure(request.ref)
        token = self._tokens[worker_id] = secrets.token_urlsafe(32)
        hello = Hello(
            worker_id=worker_id,
            organization_id=request.ref.organization_id,
            agent_id=request.ref.agent_id,
            conversation_id=request.ref.conversation_id,
            workspace=workspace,
            session_file=session_file,
            settings=request.settings,
            deadlines=dict(request.deadlines),
        )
        return Launch(Spawn(worker_id, kind.argv, self._environment_of(workspace, token), workspace), hello)

    async def _stop(self) -> None:
        """Ask all to end, then kill; returns when all are gone or the time for it is over."""
        self._stopping = True
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

"""The remote workers of this host: the links of runners that came in, and the workers that have or want one.

A supervised child whose nursery holds a task for each link and each worker. Who gets which place is
`Line`'s; what a worker does with its place is `RemoteWorker`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Mapping

import structlog
import trio

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.frames import PROTOCOL_VERSION
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.worker_link import LinkError
from lobu_actors.conversation.worker_port import Deliver, WorkerRequest
from lobu_actors.gateway.worker_door import CannotReach, Joining, MemoryPipe, PipeClosed, WorkerPipe, memory_pipe
from lobu_actors.runtime.child_spec import ChildContext
from supervisor.remote.carrying import Files
from supervisor.remote.line import Line, Link
from supervisor.remote.sending import BEAT_SECONDS
from supervisor.remote.worker import RemoteWorker
from supervisor.workers.info import WorkerInfo, oldest
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces

_log = structlog.get_logger()

JOIN_SECONDS = 10.0
MAX_LINKS = 1000
GiveUpElsewhere = Callable[[Joining], Awaitable[bool]]
MACHINE_LENGTH = 64  # of its name for itself, of which nobody knows whether it is true


class RemoteWorkers:
    """`start` is the port's; `open` and `attach` are for doors."""

    def __init__(
        self,
        host_id: Callable[[], str],
        types: Mapping[str, WorkerType],
        workspaces: HostWorkspaces,
        limits: WorkerLimits,
        quota: Quota,
    ) -> None:
        self._host_id = host_id
        self._types = types
        self._workspaces = workspaces
        self._limits = limits
        self._quota = quota
        self._lines: dict[Joining, Line] = {}
        self._workers: dict[str, RemoteWorker] = {}
        self._links = 0
        self._nursery: trio.Nursery | None = None
        self._all_gone = trio.Event()
        # As that of `WorkerProcesses`.
        self.end_one_at_rest: Callable[[Container[ConversationRef]], None] = lambda refs: None
        self.give_up_elsewhere: GiveUpElsewhere = _nobody_else

    async def run(self, context: ChildContext) -> None:
        """Until an ordered stop, with which all workers end."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                context.started()
                await context.stopping.wait()
                await self._stop()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None

    def __len__(self) -> int:
        """Those that were asked for and are not gone, whether they have a place or wait for one."""
        return len(self._workers)

    def oldest(self, organization_id: str, most: int) -> list[WorkerInfo]:
        """One organization's, in the order of asking."""
        return oldest(self._workers.values(), organization_id, most, _info)

    def idle(self, organization_id: str, worker: str | None = None) -> int:
        """Places that wait for a worker, of one type or of all."""
        return sum(
            len(line.idle)
            for key, line in self._lines.items()
            if key.organization_id == organization_id and worker in (None, key.worker)
        )

    # --- for conversations

    def start(self, request: WorkerRequest, deliver: Deliver) -> RemoteWorker:
        """As `Workers.start`. Raises RuntimeError when this does not run."""
        if self._nursery is None:
            raise RuntimeError("remote workers cannot be started now")
        files = Files(self._workspaces.of(request.ref), self._quota, sends="input", takes="output")
        grace = self._types[request.worker].reconnect_seconds
        worker = RemoteWorker(new_id(), self._host_id(), request, deliver, self, files, self._limits, grace)
        self._workers[worker.worker_id] = worker
        self._nursery.start_soon(self._live, worker)
        return worker

    async def _live(self, worker: RemoteWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.worker_id]
            self._line(_joining(worker)).gone(worker)
            if not self._workers:
                self._all_gone.set()

    async def claim(self, worker: RemoteWorker) -> WorkerPipe:
        return await self._line(_joining(worker)).claim(worker)

    def _line(self, key: Joining) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = Line(
                key.worker,
                self._limits.place_seconds,
                lambda refs: self.end_one_at_rest(refs),
                lambda: self.give_up_elsewhere(key),
            )
            self._lines[key] = line
        return line

    # --- for doors

    def open(self, joining: Joining) -> MemoryPipe:
        """A pipe to here within this process. Raises CannotReach."""
        if self._nursery is None:
            raise CannotReach("the supervisor does not run")
        here, there = memory_pipe()
        self._nursery.start_soon(self.attach, here, joining)
        return there

    async def attach(self, pipe: WorkerPipe, joining: Joining) -> None:
        """Serve a link until it ends. Raises nothing."""
        if self._links >= MAX_LINKS:
            await pipe.close(link.NOBODY_THERE, f"This host has {MAX_LINKS} links of remote workers already.")
            return
        self._links += 1
        served = Link(pipe, joining)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat, served, nursery.cancel_scope)
                await self._serve(served)
                nursery.cancel_scope.cancel()
        except* PipeClosed as closed:
            _log.info("worker link ended", worker=joining.worker, reason=str(closed.exceptions[0]))
        except* LinkError as wrong:
            _log.warning("worker link refused", worker=joining.worker, reason=str(wrong.exceptions[0]))
            await pipe.close(link.REFUSED, f"Refused: {wrong.exceptions[0]}.")
        except* Exception as group:
            # Whatever it is, and whoever is at the other end: one link never takes the others down with it.
            _log.error("worker link failed", worker=joining.worker, exc_info=group)
            await pipe.close(1011, "The host failed to handle the link.")
        finally:
            self._links -= 1
            self._forget(served)

    def give_up(self, joining: Joining) -> bool:
        """For a conversation of another host. False: none here has a place of that type."""
        line = self._lines.get(joining)
        return line is not None and line.give_up()

    async def _serve(self, served: Link) -> None:
        join = await self._read_join(served)
        if join is None:
            return
        served.machine = join.name.encode("utf-8", "replace").decode()[:MACHINE_LENGTH]
        if join.resume:
            worker = self._workers.get(join.resume)
            fits = worker is not None and _joining(worker) == served.joining
            if worker is None or not fits or not await worker.resume(served.pipe, join.received):
                await served.pipe.close(link.UNKNOWN_WORKER, "This host does not know that worker any more.")
                return
            served.give(worker)
        else:
            await served.pipe.send(link.encode(link.Received(0)))  # it is let in
            self._line(served.joining).offer(served)
        while True:
            text = await served.pipe.receive()
            if served.worker is not None:
                await served.worker.take(served.pipe, text)

    async def _read_join(self, served: Link) -> link.Join | None:
        """None: the pipe was closed, with a sentence."""
        join: link.LinkMessage | None = None
        with trio.move_on_after(JOIN_SECONDS) as waiting:
            join = link.decode(await served.pipe.receive())
        if waiting.cancelled_caught:  # it, or its edge, stood still: nothing says that it does not fit
            await served.pipe.close(link.NOBODY_THERE, "The first message did not come in time; try again.")
            return None
        kind = self._types.get(served.joining.worker)
        reason = None
        if not isinstance(join, link.Join):
            reason = "The first message must be `link.join`."
        elif join.version != link.LINK_VERSION or join.protocol != PROTOCOL_VERSION:
            reason = (
                f"It speaks version {join.version} of the link and {join.protocol} of the worker protocol, this host "
                f"{link.LINK_VERSION} and {PROTOCOL_VERSION}; install the same release on both."
            )
        elif join.worker != served.joining.worker:
            reason = f"The token is for workers of type {served.joining.worker!r}, not {join.worker!r}."
        elif kind is None or not kind.remote:
            reason = (
                f"This host has no remote worker type {join.worker!r}; its lobu.toml needs [workers.{join.worker}] "
                "with remote = true."
            )
        if reason is not None:
            _log.warning("worker link refused", worker=served.joining.worker, reason=reason)
            await served.pipe.close(link.REFUSED, reason)
            return None
        assert isinstance(join, link.Join)
        return join

    def _forget(self, served: Link) -> None:
        self._line(served.joining).withdraw(served)
        if served.worker is not None:
            served.worker.lost(served.pipe)

    async def _beat(self, served: Link, scope: trio.CancelScope) -> None:
        """Signs of life for a place that is idle: nobody else sends anything to it."""
        while True:
            await trio.sleep(BEAT_SECONDS)
            if served.worker is None:
                try:
                    await served.pipe.send(link.encode(link.Received(0)))
                except PipeClosed:
                    scope.cancel()

    async def _stop(self) -> None:
        for worker in list(self._workers.values()):
            worker.shutdown(self._limits.stop_grace_seconds)
        with trio.move_on_after(self._limits.stop_grace_seconds + 2 * self._limits.killed_seconds):
            while self._workers:
                self._all_gone = trio.Event()
                await self._all_gone.wait()


async def _nobody_else(joining: Joining) -> bool:
    return False


def _joining(worker: RemoteWorker) -> Joining:
    return Joining(worker.request.ref.organization_id, worker.request.worker)


def _info(worker: RemoteWorker, now: float) -> WorkerInfo:
    state = worker.state
    if not worker.linked:
        state = "cut" if state == "ready" else "waiting"
    request = worker.request
    return WorkerInfo(worker.worker_id, request.worker, None, request.ref, now - worker.asked_at, state, worker.machine)

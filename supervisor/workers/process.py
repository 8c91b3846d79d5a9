"""One worker process from the wish for it, or its adoption, to its end: spawn, handshake, frames, end.

Owns the order of a worker's signals and that `WorkerGone` is the last and comes once. Knows the spawner's link and the
worker protocol's handshake; must not know what a turn is.

How the end is found: the kernel closes the worker's socket before its exit can be reported, so an EOF waits a moment
for the report, which has the exit code; longer when the process is gone and only its spawner is late. A grandchild may
keep the socket open: the report then shuts our reading side, after which reading gives what is there and ends.
"""

import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
import structlog
import trio
from msgspec.structs import replace

from lobu_actors.contract import frames
from lobu_actors.contract.frames import FrameError
from lobu_actors.conversation.worker_port import (
    Deliver,
    Gone,
    WorkerFrames,
    WorkerGone,
    WorkerReady,
    WorkerRequest,
    WorkerSignal,
    is_disk_full,
)
from supervisor.spawner.connection import Exit, SpawnedProcess, SpawnerLost, SpawnFailed
from supervisor.spawner.link import SpawnerLink
from supervisor.spawner.protocol import Spawn
from supervisor.workers.frame_reader import EndOfFrames, FrameReader
from supervisor.workers.frame_writer import BufferFull, FrameWriter, send_first
from supervisor.workers.label import Label, encode
from supervisor.workers.slots import Slots
from supervisor.workers.types import WorkerLimits

_SPAWNER_LOST = "The spawner ended, and the worker with it."
FINAL_SECONDS = 1.0  # for `WorkerGone` when the task itself is cancelled

_Batch = tuple[frames.Frame, ...]

_log = structlog.get_logger()


class Launch(msgspec.Struct, frozen=True):
    """What a worker needs to start, made just before: program, environment and folder, and its first frame.

    `spawn` is None for an idle process, which has started already.
    """

    spawn: Spawn | None
    hello: frames.Hello


class _Ending(msgspec.Struct, frozen=True):
    reason: str
    detail: str


class _DiskFull(Exception):
    """There was no room to make the workspace."""


class _ReceiverFailed(Exception):
    """`deliver` raised: nobody listens to this worker any more."""


class WorkerProcess:
    """Implements `Worker`. `run` is its whole life, in one task of its own.

    `source` is how to launch it, or the process itself when an earlier supervisor had it; it is then ready at once.
    """

    def __init__(
        self,
        worker_id: str,
        request: WorkerRequest,
        label: Label,
        source: Callable[[], Awaitable[Launch]] | SpawnedProcess,
        link: SpawnerLink,
        limits: WorkerLimits,
        slots: Slots,
        deliver: Deliver,
        idle: SpawnedProcess | None = None,
    ) -> None:
        """`idle`: the process that was started before anybody asked; it is ours now, and so is its slot."""
        self.worker_id = worker_id
        self.request = request
        self.state = "starting"
        self.pid: int | None = None
        self.asked_at = time.monotonic()
        self._label = label
        self._source: Callable[[], Awaitable[Launch]] | SpawnedProcess | None = source
        self._link = link
        self._limits = limits
        self._slots = slots
        self._deliver_to = deliver
        self._startup = trio.CancelScope()
        self._process: SpawnedProcess | None = None
        self._writer = FrameWriter(limits.send_buffer_bytes)
        self._nursery: trio.Nursery | None = None
        self._flushing = False
        self._idle = idle
        self._has_slot = idle is not None
        self._cause: _Ending | None = None  # why we ended it, when we did

    # --- Worker

    def send(self, frame: frames.Frame) -> bool:
        """Send a frame, or keep it until the worker is ready. Ends a worker that does not read as STALLED."""
        if self.state == "gone" or self._cause is not None:
            return False
        try:
            has_rest = self._writer.write(frames.encode(frame))
        except BufferFull as error:
            self._end(Gone.STALLED, f"The worker was ended: {error}.")
            return False
        if has_rest:
            self._start_flush()
        return not self._writer.closed

    def kill(self) -> None:
        """SIGKILL to the whole process group now; a worker that does not run yet is not started."""
        self._end(Gone.EXITED, "The supervisor killed the worker.")

    def end_for_its_workspace(self, detail: str) -> None:
        """As `kill`; it is told that its workspace was over the limit."""
        self._end(Gone.WORKSPACE_FULL, detail)

    def shutdown(self, grace_seconds: float) -> None:
        """Ask it to end, SIGKILL after the grace; a worker that is not ready yet is killed at once."""
        if self._nursery is None or self.state != "ready":
            self.kill()
            return
        self.send(frames.Shutdown(grace_seconds=grace_seconds))
        self._nursery.start_soon(self._kill_after, grace_seconds)

    # --- its life

    async def run(self) -> None:
        """Start the worker, deliver its signals, end it. Raises nothing but cancellation, under which it ends too.

        `deliver` must be all or nothing when it is cancelled: the last signal is then tried once more.
        """
        ending = _Ending(Gone.EXITED, "The host stopped.")
        try:
            async with trio.open_nursery() as self._nursery:  # for what the socket does not take at once
                first = await self._begin()
                ending = first if isinstance(first, _Ending) else await self._talk(first)
                await self._tell(ending)  # somebody waits for it, and nobody for the nursery's end
                self._nursery.cancel_scope.cancel()
        except Exception as error:
            _log.exception("worker.internal_error", worker_id=self.worker_id)
            ending = _Ending(Gone.EXITED, f"The supervisor failed to handle the worker: {error!r}.")
        finally:
            try:
                if self.state != "gone":
                    await self._tell(ending)
            finally:
                if self._process is not None:
                    self._process.close()

    async def _begin(self) -> _Ending | list[WorkerSignal]:
        """Gives what it said first. Nothing is kept of how it began: workers stand by for a long time."""
        source, self._source = self._source, None
        assert source is not None, "it lives once"
        return await (self._go_on(source) if isinstance(source, SpawnedProcess) else self._start_up(source))

    async def _go_on(self, process: SpawnedProcess) -> _Ending | list[WorkerSignal]:
        """With a worker that an earlier supervisor talked to; gives what it has said."""
        self._has_slot = self._slots.take_nowait()  # it lives already, so there may be one too many for a while
        self._hold(process, mid_line=True)
        if self._cause is not None:  # it was ended before this task came to run
            self._link.end(process)
        left: list[frames.Frame] = []
        if frames.TEXT_OFFSET not in (self._label.capabilities or ()):
            # It will begin its text again, and cannot say where: what it wrote before must not be taken for that.
            waiting = self._reader.read_waiting()
            left = [frame for frame in waiting if isinstance(frame, frames.Ask | frames.Complete | frames.Fail)]
            if any(isinstance(frame, frames.Complete) and frame.text is None for frame in left):
                detail = "It ended its reply while no supervisor was there, and nobody knows all of its text."
                self._end(Gone.EXITED, detail)
                return await self._exit(_Ending(Gone.EXITED, detail))
        return [WorkerFrames(self.worker_id, tuple(left))] if left else []

    async def _take_slot(self) -> None:
        self._has_slot = self._has_slot or self._slots.take_nowait()
        if not self._has_slot:
            self.state = "waiting"
            self._startup.deadline = trio.current_time() + self._limits.place_seconds
            await self._slots.take()
            self._has_slot = True
            self.state = "starting"

    async def _start_up(self, prepare: Callable[[], Awaitable[Launch]]) -> _Ending | list[WorkerSignal]:
        """Gives what it said first."""
        first: _Batch | None = None
        ending = _Ending(Gone.NOT_STARTED, self._slots.none_in(self._limits.place_seconds))
        try:
            with self._startup:
                await self._take_slot()
                ending = _Ending(Gone.NOT_STARTED, f"It was not ready within {self.request.startup_seconds:g} s.")
                self._startup.deadline = trio.current_time() + self.request.startup_seconds
                first = await self._start(prepare)
        except _DiskFull as error:
            return _Ending(Gone.DISK_FULL, str(error))
        except SpawnFailed as error:
            return _Ending(Gone.NOT_STARTED, str(error))
        except SpawnerLost as error:
            return _Ending(Gone.SPAWNER_LOST, str(error))
        except EndOfFrames:
            ending = await self._exit(_Ending(Gone.NOT_STARTED, "It closed its socket before it was ready."))
            if self._idle is not None:
                return _Ending(Gone.STALE, "It was idle, and ended when it was to begin.")
        except FrameError as error:
            ending = self._broken(error)
        if first is None:
            if self._process is not None and self._process.exit is not None and self._process.exit.lost:
                return _Ending(Gone.SPAWNER_LOST, _SPAWNER_LOST)
            cause = self._cause
            if cause is not None and cause.reason == Gone.WORKSPACE_FULL:
                return cause
            return _Ending(Gone.NOT_STARTED, (cause or ending).detail)
        return await self._greet(first)

    async def _start(self, prepare: Callable[[], Awaitable[Launch]]) -> _Batch:
        """Spawn and greet; gives `ready` and what came in the same read."""
        try:
            launch = await prepare()
        except OSError as error:
            detail = f"The workspace could not be made: {error}."
            raise (_DiskFull(detail) if is_disk_full(error) else SpawnFailed(detail)) from error
        if launch.spawn is not None:
            process = await self._link.spawn(launch.spawn)
        else:
            assert self._idle is not None, "what is not to be spawned is there"
            process = self._idle
        self._hold(process)
        await send_first(process.socket, frames.encode(launch.hello))
        while True:
            batch = await self._reader.read()
            for index, frame in enumerate(batch):
                if isinstance(frame, frames.Ready):
                    return batch[index:]
                if not isinstance(frame, frames.Heartbeat | frames.Log):
                    raise FrameError(f"`{frame.TYPE}` before `ready`", b"")

    def _hold(self, process: SpawnedProcess, *, mid_line: bool = False) -> None:
        self._process = process
        self.pid = process.pid
        process.on_exit = self._stop_reading
        if process.exit is not None:
            self._stop_reading()
        limit = self._limits.max_line_bytes
        self._reader = FrameReader(process.socket, self.worker_id, limit, mid_line=mid_line)

    async def _greet(self, first: _Batch) -> _Ending | list[WorkerSignal]:
        ready, *rest = first
        assert isinstance(ready, frames.Ready)
        assert self._process is not None
        if ready.protocol != frames.PROTOCOL_VERSION:
            detail = f"It speaks protocol {ready.protocol}, not {frames.PROTOCOL_VERSION}."
            self._end(Gone.NOT_STARTED, detail)
            return await self._exit(_Ending(Gone.NOT_STARTED, detail))
        label, capabilities = _shared(tuple(ready.capabilities))
        self._relabel(capabilities=label)
        said = WorkerReady(self.worker_id, self._process.pid, self._process.started_at, capabilities)
        return [said, WorkerFrames(self.worker_id, tuple(rest))] if rest else [said]

    async def _talk(self, said: list[WorkerSignal]) -> _Ending:
        assert self._process is not None
        self.state = "ready"
        if self._writer.open(self._process.socket):
            self._start_flush()
        try:
            while True:
                while said:
                    await self._deliver(said.pop(0))
                said.append(WorkerFrames(self.worker_id, await self._reader.read()))
        except EndOfFrames:
            pass
        except FrameError as error:
            broken = self._broken(error)
            self._end(broken.reason, broken.detail)
        except _ReceiverFailed:
            self._end(Gone.EXITED, "Its conversation ended.")
        return await self._exit(_Ending(Gone.SOCKET_CLOSED, "It closed its socket and was ended for that."))

    # --- its end

    async def _exit(self, if_alive: _Ending) -> _Ending:
        """Wait for the report that must be near, kill if it does not come, and say how the worker ended."""
        process = self._process
        assert process is not None
        if self._cause is None:
            with trio.move_on_after(self._limits.exit_report_seconds):
                await process.wait()
            if process.exit is None and process.is_alive:
                self._end(if_alive.reason, if_alive.detail)
        with trio.move_on_after(self._limits.killed_seconds):
            await process.wait()
        how = process.exit
        if how is not None and how.lost:
            return _Ending(Gone.SPAWNER_LOST, _SPAWNER_LOST)
        return self._cause or _Ending(Gone.EXITED, _describe(how))

    def _end(self, reason: str, detail: str) -> None:
        if self._cause is None:
            self._cause = _Ending(reason, detail)
        if self._process is None:
            self._startup.cancel()
        elif self._process.exit is None:
            self._link.end(self._process)

    def _broken(self, error: FrameError) -> _Ending:
        _log.warning("worker.broken_line", worker_id=self.worker_id, reason=str(error), line=repr(error.shown))
        return _Ending(Gone.PROTOCOL, f"It sent what is not the worker protocol: {error}.")

    def _stop_reading(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._process.socket.shutdown(socket.SHUT_RD)

    async def _tell(self, ending: _Ending) -> None:
        """The last signal, once; the process's descriptors stay ours until nobody waits on them."""
        self.state = "gone"
        how: Exit | None = None
        if self._process is None:
            self._process = self._idle  # ended before it was talked to
        if self._process is not None:
            how = self._process.exit
            if how is None:
                self._link.end(self._process)
            self._process.on_exit = None
        if self._has_slot:
            self._has_slot = False
            self._slots.give_back()
        exit_code, number = (how.exit_code, how.signal) if how is not None else (None, None)
        gone = WorkerGone(self.worker_id, ending.reason, ending.detail, exit_code, number)
        with suppress(_ReceiverFailed):
            try:
                await self._deliver(gone)
            except trio.Cancelled:
                with trio.move_on_after(FINAL_SECONDS, shield=True):
                    await self._deliver(gone)
                raise

    # --- small things

    async def _deliver(self, signal: WorkerSignal) -> None:
        try:
            await self._deliver_to(signal)
        except Exception as error:
            _log.exception("worker.receiver_failed", worker_id=self.worker_id)
            raise _ReceiverFailed from error

    def _start_flush(self) -> None:
        if self._nursery is not None and self.state == "ready" and not self._flushing:
            self._flushing = True
            self._relabel(mid_frame=True)
            self._nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        await self._writer.flush()
        self._flushing = False
        self._relabel(mid_frame=False)

    def _relabel(self, **changes: Any) -> None:
        self._label = replace(self._label, **changes)
        self._link.relabel(self.worker_id, encode(self._label))

    async def _kill_after(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.kill()


@lru_cache(maxsize=64)
def _shared(capabilities: tuple[str, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """One copy for all workers that have these; there may be a thousand, and nearly all have the same."""
    return capabilities, frozenset(capabilities)


def _describe(how: Exit | None) -> str:
    if how is None:
        return "It ended, and nobody says how."
    if how.exit_code is not None:
        return f"It exited with code {how.exit_code}."
    return f"It was ended by signal {how.signal}."

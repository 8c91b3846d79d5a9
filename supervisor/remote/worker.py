"""One worker on another machine, as a conversation sees it: from the wish for it to its end. Implements `Worker`.

Its connection may be cut and come again within the grace: nothing is lost and the conversation hears nothing of it, but
for signs of life that are given in the worker's place, so that its clock does not take the cut for a silent worker.

Owns the order of the worker's signals, and that `WorkerGone` is the last and comes once. What is received is counted
before it is passed on, and passed on one by one: a new connection never brings it again.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog
import trio

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.frames import FrameError
from lobu_actors.contract.worker_link import Ended, LinkError
from lobu_actors.conversation.worker_port import (
    Deliver,
    Gone,
    SessionFileInvalid,
    WorkerFrames,
    WorkerGone,
    WorkerReady,
    WorkerRequest,
    WorkerSignal,
)
from lobu_actors.gateway.worker_door import PipeClosed, WorkerPipe
from supervisor.remote.carrying import Files, TooMuch
from supervisor.remote.sending import BEAT_SECONDS, Sending
from supervisor.workers.frame_reader import Pace
from supervisor.workers.types import WorkerLimits

_log = structlog.get_logger()

FINAL_SECONDS = 1.0  # for `WorkerGone` when the task itself is cancelled
KILL_SECONDS = 5.0  # from asking the other machine for the end to its word that it is done


class NoPlace(Exception):
    """None became free in time; the text says what would have helped."""


class Places(Protocol):
    async def claim(self, worker: RemoteWorker) -> WorkerPipe:
        """An idle place of this worker's type, which is the worker's from now on; waits for one. Raises NoPlace."""
        ...


class RemoteWorker:
    """`run` is its whole life, in one task of its own. `take` and `lost` are called by whoever reads its pipe."""

    def __init__(
        self,
        worker_id: str,
        host_id: str,
        request: WorkerRequest,
        deliver: Deliver,
        places: Places,
        files: Files,
        limits: WorkerLimits,
        grace_seconds: float,
    ) -> None:
        self.worker_id = worker_id
        self.request = request
        self.state = "starting"
        self.machine = ""  # of its place, as that calls itself
        self.asked_at = time.monotonic()
        self._host_id = host_id
        self._deliver_to = deliver
        self._places = places
        self._files = files
        self._limits = limits
        self._grace = grace_seconds
        self._startup = trio.CancelScope()
        self._pipe: WorkerPipe | None = None
        self._newest: WorkerPipe | None = None  # of those that came with the worker again
        self._attached = trio.Event()
        self._lost = trio.Event()
        self._lost_at = 0.0
        self._ready: WorkerReady | None = None
        self._is_ready = trio.Event()
        self._sending = Sending()
        self._queue: deque[frames.Frame] = deque()
        self._queued = trio.Event()
        self._queued_bytes = 0
        self._taking = trio.Lock()
        self._pace = Pace()
        self._nursery: trio.Nursery | None = None
        self._cause: Ended | None = None  # why we ended it, when we did
        self._over = trio.Event()
        self._ending: Ended | None = None

    # --- Worker

    def send(self, frame: frames.Frame) -> bool:
        if self.state == "gone" or self._cause is not None or self._ending is not None:
            return False
        self._queued_bytes += len(frames.encode(frame))
        if self._queued_bytes + self._sending.pending_bytes > self._limits.send_buffer_bytes:
            self._end(Gone.STALLED, "The worker was ended: it does not take what it is sent.")
            return False
        self._queue.append(frame)
        self._queued.set()
        return True

    def kill(self) -> None:
        self._end(Gone.EXITED, "The supervisor killed the worker.")

    def shutdown(self, grace_seconds: float) -> None:
        if self._nursery is None:
            self.kill()
            return
        self.send(frames.Shutdown(grace_seconds=grace_seconds))
        self._nursery.start_soon(_after, grace_seconds, self.kill)

    # --- its life

    async def run(self) -> None:
        """Raises nothing but cancellation, under which it ends too."""
        ending = Ended(Gone.EXITED, "The host stopped.")
        try:
            ending = await self._live()
        except Exception as error:
            _log.exception("worker.internal_error", worker_id=self.worker_id)
            ending = Ended(Gone.EXITED, f"The supervisor failed to handle the worker: {error!r}.")
        finally:
            await self._finish(ending)

    async def _live(self) -> Ended:
        with self._startup:
            while not self._is_ready.is_set() and self._ending is None:
                await self._begin()
        if self._ready is None:
            late = Ended(Gone.NOT_STARTED, f"It was not ready within {self.request.startup_seconds:g} s.")
            return self._ending or self._cause or late
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._feed)
            nursery.start_soon(self._keep_sending)
            nursery.start_soon(self._watch_grace)
            await self._over.wait()
            self._nursery = None
            nursery.cancel_scope.cancel()
        assert self._ending is not None
        return self._ending

    async def _begin(self) -> None:
        """Until the worker is ready, or the place that it was given is lost and another one must be found."""
        self._sending = Sending()
        self._startup.deadline = math.inf
        try:
            pipe = await self._places.claim(self)
        except NoPlace as none:
            self._is_over(Ended(Gone.NOT_STARTED, str(none)))
            return
        self._startup.deadline = trio.current_time() + self.request.startup_seconds
        self._attach(pipe)
        self._sending.put_now(frames.encode(self._hello()).decode())
        try:
            await pipe.send(self._joined())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_over, pipe)
                nursery.start_soon(self._until_lost, nursery.cancel_scope)
                await self._is_ready.wait()
                nursery.cancel_scope.cancel()
        except PipeClosed:
            self.lost(pipe)

    async def _until_lost(self, scope: trio.CancelScope) -> None:
        await self._lost.wait()
        scope.cancel()

    async def resume(self, pipe: WorkerPipe, received: int) -> bool:
        """A new connection of the runner that has this worker. False: it is no use, the worker is over.

        Raises LinkError, PipeClosed.
        """
        if self._ending is not None or self._ready is None:
            return False
        self._newest = pipe
        await self._replace()
        async with self._taking:  # what came over the one before is counted by now
            if self._newest is not pipe:
                return False
            await self._replace()  # one that came before this one and was let in meanwhile
            self._sending.resume(received)
            await pipe.send(self._joined())
            self._attach(pipe)
        _log.info("worker.link_resumed", worker_id=self.worker_id)
        return True

    async def _replace(self) -> None:
        former = self._pipe
        self._detach()
        if former is not None:
            await former.close(link.UNKNOWN_WORKER, "The worker's runner has another connection now.")

    def _joined(self) -> str:
        return link.encode(link.Joined(self._host_id, self.worker_id, self._grace, self._sending.received))

    def _hello(self) -> frames.Hello:
        """The places of its files are the other machine's to say."""
        ref = self.request.ref
        return frames.Hello(
            worker_id=self.worker_id,
            organization_id=ref.organization_id,
            agent_id=ref.agent_id,
            conversation_id=ref.conversation_id,
            workspace="",
            session_file="",
            settings=self.request.settings,
            deadlines=dict(self.request.deadlines),
        )

    # --- its connection

    @property
    def linked(self) -> bool:
        return self._pipe is not None

    def _attach(self, pipe: WorkerPipe) -> None:
        self._pipe, self._lost = pipe, trio.Event()
        self._attached.set()

    def _detach(self) -> None:
        if self._pipe is not None:  # else somebody waits for the event that is there
            self._pipe, self._attached = None, trio.Event()
            self._lost_at = trio.current_time()
            self._lost.set()

    def lost(self, pipe: WorkerPipe) -> None:
        """The pipe is closed."""
        if pipe is self._pipe:
            self._detach()

    async def _keep_sending(self) -> None:
        while True:
            await self._attached.wait()
            pipe, lost = self._pipe, self._lost
            if pipe is None:
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_over, pipe)
                await lost.wait()
                nursery.cancel_scope.cancel()

    async def _send_over(self, pipe: WorkerPipe) -> None:
        try:
            await self._sending.send_over(pipe.send)
        except PipeClosed:
            self.lost(pipe)

    async def _watch_grace(self) -> None:
        while True:
            await self._lost.wait()
            while self._pipe is None:
                left = self._lost_at + self._grace - trio.current_time()
                if left <= 0:
                    detail = f"The link to its machine was lost, and did not come back within {self._grace:g} s."
                    self._is_over(Ended(Gone.SOCKET_CLOSED, detail))
                    return
                with trio.move_on_after(min(left, BEAT_SECONDS)):
                    await self._attached.wait()
                if self._pipe is None:
                    async with self._taking:
                        await self._deliver(WorkerFrames(self.worker_id, (frames.Heartbeat(),)))

    # --- what goes out

    async def _feed(self) -> None:
        while True:
            while self._queue:
                frame = self._queue.popleft()
                text = frames.encode(frame).decode()
                if isinstance(frame, frames.TurnFrame):
                    await self._carry_out()
                await self._sending.put(text.rstrip("\n"))
                self._queued_bytes -= len(text)
            self._queued = trio.Event()
            await self._queued.wait()

    async def _carry_out(self) -> None:
        try:
            await self._files.send_before_turn(self._sending.put)
        except (OSError, SessionFileInvalid) as error:
            self._end(Gone.EXITED, f"The files of the turn could not be read: {error}.")

    # --- what comes in

    async def take(self, pipe: WorkerPipe, text: str) -> None:
        """A message of the pipe's. Raises LinkError: the connection is of no use any more."""
        async with self._taking:
            if pipe is not self._pipe or self._ending is not None:
                return
            message = link.decode(text)
            if isinstance(message, link.Received):
                self._sending.acknowledged(message.received)
                return
            if not link.is_counted(message):
                raise LinkError(f"{type(message).__name__} in the middle")
            self._sending.count()
            try:
                await self._take_counted(message, text)
            except FrameError as error:
                _log.warning("worker.broken_line", worker_id=self.worker_id, reason=str(error), line=repr(error.shown))
                self._end(Gone.PROTOCOL, f"It sent what is not the worker protocol: {error}.")
            except TooMuch as error:
                self._end(Gone.WORKSPACE_FULL, str(error))
            except OSError as error:
                self._end(Gone.EXITED, f"Its files could not be kept: {error}.")
            self._pace.take(1, trio.current_time())
        if self._pace.resumes_at > trio.current_time():
            await trio.sleep_until(self._pace.resumes_at)

    async def _take_counted(self, message: link.LinkMessage | None, text: str) -> None:
        match message:
            case None:
                await self._take_frame(frames.decode_worker_frame(text.encode("utf-8", "replace")))
            case link.Piece():
                await self._files.take(message)
            case Ended():
                self._is_over(self._cause or message)
            case _:
                raise LinkError(f"{type(message).__name__}, which a runner does not send")

    async def _take_frame(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Ready) and self._ready is None:
            if frame.protocol != frames.PROTOCOL_VERSION:
                self._end(Gone.NOT_STARTED, f"It speaks protocol {frame.protocol}, not {frames.PROTOCOL_VERSION}.")
                return
            self.state = "ready"
            self._ready = WorkerReady(self.worker_id, None, None, frozenset(frame.capabilities))
            await self._deliver(self._ready)
            self._is_ready.set()
        elif self._ready is None:
            if not isinstance(frame, frames.Heartbeat | frames.Log):
                raise FrameError(f"`{frame.TYPE}` before `ready`", b"")
        elif not isinstance(frame, frames.Unknown):
            await self._deliver(WorkerFrames(self.worker_id, (frame,)))

    # --- its end

    def _end(self, reason: str, detail: str) -> None:
        if self._cause is not None or self._ending is not None:
            return
        self._cause = Ended(reason, detail)
        self._sending.put_now(link.encode(link.Kill()))
        if self._nursery is None:
            self._is_over(self._cause)
        else:
            self._nursery.start_soon(_after, KILL_SECONDS, partial(self._is_over, self._cause))

    def _is_over(self, ending: Ended) -> None:
        if self._ending is None:
            self._ending = ending
        self._over.set()
        self._startup.cancel()

    async def _finish(self, ending: Ended) -> None:
        self.state = "gone"
        self._nursery = None
        self._ending = self._ending or ending
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            with trio.move_on_after(FINAL_SECONDS, shield=True):
                # Over the pipe itself: what is still to be sent before it is of no use to anybody.
                with suppress(PipeClosed):
                    await pipe.send(link.encode(link.Kill()))
                await pipe.close(link.UNKNOWN_WORKER, "The worker is over.")
        gone = WorkerGone(self.worker_id, ending.reason, ending.detail, ending.exitCode, ending.signal)
        try:
            await self._deliver(gone)
        except trio.Cancelled:
            with trio.move_on_after(FINAL_SECONDS, shield=True):
                await self._deliver(gone)
            raise

    async def _deliver(self, signal: WorkerSignal) -> None:
        try:
            await self._deliver_to(signal)
        except Exception:
            _log.exception("worker.receiver_failed", worker_id=self.worker_id)
            self._end(Gone.EXITED, "Its conversation ended.")


async def _after(seconds: float, do: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    do()

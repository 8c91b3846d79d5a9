"""One worker on the runner's side: what a host says over its link, done to a local worker process, and the way back.

The local worker is the same as a supervisor's own (`supervisor.workers`): spawned, bounded, watched and ended alike.
The reply is passed on only behind its files. Knows nothing of connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from lobu_actors.contract import frames
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.errors import TurnError
from lobu_actors.contract.frames import Frame, FrameError
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.worker_link import LinkError
from lobu_actors.conversation.worker_port import (
    Gone,
    WorkerFrames,
    WorkerGone,
    WorkerReady,
    WorkerRequest,
    WorkerSignal,
    is_disk_full,
)
from supervisor.remote.carrying import Files, TooMuch
from supervisor.remote.sending import Sending
from supervisor.workers.process import WorkerProcess
from supervisor.workers.service import WorkerProcesses
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces

_log = structlog.get_logger()

STARTUP_SECONDS = 60.0  # when the host does not say; it has its own clock for that


MakeWay = Callable[[ConversationRef, "Tenant"], Awaitable[None]]


class Tenant:
    """`take` is called by whoever reads the link, one call at a time. `gone` is set once the worker process is."""

    def __init__(
        self,
        joined: link.Joined,
        kind: str,
        version: str,
        workers: WorkerProcesses,
        workspaces: HostWorkspaces,
        quota: Quota,
        make_way: MakeWay,
    ) -> None:
        """`make_way` ends whatever worker of the conversation is here still."""
        self.worker_id = joined.worker
        self.host = joined.host
        self.grace_seconds = joined.grace
        self._make_way = make_way
        self.sending = Sending()
        self.gone = trio.Event()
        self.is_ready = False  # and its host was told
        self.in_turn = False
        self.turn_over: Callable[[], None] = lambda: None
        self._kind = kind
        self._version = version
        self._workers = workers
        self._workspaces = workspaces
        self._quota = quota
        self._files: Files | None = None
        self._worker: WorkerProcess | None = None
        self._cause: link.Ended | None = None

    async def take(self, message: link.LinkMessage | None, text: str) -> None:
        """A counted message. Raises LinkError."""
        try:
            match message:
                case None:
                    await self._take_frame(frames.decode_supervisor_frame(text.encode("utf-8", "replace")))
                case link.Prepare():
                    self.in_turn = True
                    await self._of_files().prepare(message)
                case link.Piece():
                    await self._of_files().take(message)
                case link.Kill():
                    self.kill()
                case _:
                    raise LinkError(f"{type(message).__name__}, which a host does not send")
        except FrameError as error:
            raise LinkError(str(error)) from None
        except TooMuch as error:
            self._end(Gone.EXITED, str(error))
        except OSError as error:
            reason = Gone.DISK_FULL if is_disk_full(error) else Gone.EXITED
            self._end(reason, f"The files of the turn could not be laid out on the worker's machine: {error}.")

    def kill(self) -> None:
        if self._worker is None:
            self.gone.set()
        else:
            self._worker.kill()

    def retire(self) -> None:
        """It is in no turn, and this machine leaves: a turn that is on its way to it was seen by nobody."""
        self._end(Gone.STALE, "Its machine leaves, and it was in no turn.")

    async def drop(self) -> None:
        """Its host is gone or does not know it any more: end it, and wait until it has ended."""
        self.sending.abandon()
        self.kill()
        await self.gone.wait()

    async def _take_frame(self, frame: Frame) -> None:
        if isinstance(frame, frames.Hello):
            await self._start(frame)
        elif self._worker is None:
            raise LinkError(f"`{frame.TYPE}` before `hello`")
        elif isinstance(frame, frames.Shutdown):
            self._worker.shutdown(frame.grace_seconds)
        elif not isinstance(frame, frames.Unknown) and not self._worker.send(frame):
            _log.info("frame for a worker that is gone", worker_id=self.worker_id, type=frame.TYPE)

    async def _start(self, hello: frames.Hello) -> None:
        if self._worker is not None:
            raise LinkError("a second `hello`")
        ref = ConversationRef(hello.organization_id, hello.agent_id, hello.conversation_id)
        seconds = hello.deadlines.get("startup_seconds", STARTUP_SECONDS)
        request = WorkerRequest(
            ref,
            self._kind,
            hello.settings,
            hello.deadlines,
            float(seconds) if isinstance(seconds, int | float) else STARTUP_SECONDS,
        )
        self._files = Files(self._workspaces.of(ref), self._quota, sends="output", takes="input")
        await self._make_way(ref, self)
        self._worker = self._workers.start(request, self._deliver)

    def _of_files(self) -> Files:
        if self._files is None:
            raise LinkError("files before `hello`")
        return self._files

    def _end(self, reason: str, detail: str) -> None:
        _log.warning("worker ended here", worker_id=self.worker_id, reason=detail)
        self._cause = self._cause or link.Ended(reason, detail)
        self.kill()

    # --- the way back

    async def _deliver(self, signal: WorkerSignal) -> None:
        match signal:
            case WorkerReady():
                ready = frames.Ready(name=self._kind, version=self._version, capabilities=sorted(signal.capabilities))
                self.is_ready = True
                await self._put(ready)
            case WorkerFrames():
                for frame in signal.frames:
                    await self._pass_on(frame)
            case WorkerGone():
                ended = self._cause or link.Ended(signal.reason, signal.detail, signal.exit_code, signal.signal)
                self._turn_is_over()
                await self.sending.put(link.encode(ended))
                self.gone.set()

    async def _pass_on(self, frame: Frame) -> None:
        if isinstance(frame, frames.Complete):
            try:
                unfit = await self._of_files().send_before_complete(self.sending.put)
            except OSError as error:
                self._end(Gone.EXITED, f"The files of the reply could not be read on the worker's machine: {error}.")
                return
            if unfit is not None:
                frame = frames.Fail(run_id=frame.run_id, code=TurnError.SESSION_FILE_INVALID, message=unfit)
        await self._put(frame)
        if isinstance(frame, frames.Complete | frames.Fail):
            self._turn_is_over()

    def _turn_is_over(self) -> None:
        self.in_turn = False
        self.turn_over()

    async def _put(self, frame: Frame) -> None:
        await self.sending.put(frames.encode(frame).decode().rstrip("\n"))

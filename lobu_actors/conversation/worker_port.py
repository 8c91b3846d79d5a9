"""What a conversation asks of worker processes. Defined here, implemented by the supervisor (and by a fake in tests).

Signals come in the order in which they happened; `WorkerGone` is the last one of a worker, and comes exactly once
after `Workers.start` returned, whatever happened to the process, the socket or the spawner.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from lobu_actors.contract.frames import Frame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.records import RunRecord


class WorkerRequest(msgspec.Struct, frozen=True):
    """A worker for one conversation. `worker` names a worker type of this host's configuration."""

    ref: ConversationRef
    worker: str
    settings: dict[str, Any]
    deadlines: dict[str, float]
    startup_seconds: float


class WorkerReady(msgspec.Struct, frozen=True):
    """A worker on another machine has no process here: pid and time are None."""

    worker_id: str
    pid: int | None
    started_at: float | None  # seconds since boot; with the pid the process's identity
    capabilities: frozenset[str]


class WorkerFrames(msgspec.Struct, frozen=True):
    """One or more frames in order: what one read of the socket brought. Never empty."""

    worker_id: str
    frames: tuple[Frame, ...]


class Gone:
    """Why a worker is gone: the values of `WorkerGone.reason`."""

    NOT_STARTED = "not-started"  # spawn failed, no `ready` in time, or it ended before `ready`
    STALE = "stale"  # a worker that was idle, and got nothing that it was sent since; another may be started at once
    EXITED = "exited"  # the process ended
    SOCKET_CLOSED = "socket-closed"  # it closed its socket and was ended for that
    PROTOCOL = "protocol"  # a broken line; it was ended for that
    STALLED = "stalled"  # it does not read what it is sent; it was ended for that
    SPAWNER_LOST = "spawner-lost"
    WORKSPACE_FULL = "workspace-full"  # its workspace is over the limit; it was ended for that
    DISK_FULL = "disk-full"  # there was no room to make its workspace


class WorkerGone(msgspec.Struct, frozen=True):
    """The worker's last signal. By now its process group was sent SIGKILL."""

    worker_id: str
    reason: str
    detail: str  # one sentence for the log and the error's context
    exit_code: int | None = None
    signal: int | None = None


WorkerSignal = WorkerReady | WorkerFrames | WorkerGone
Deliver = Callable[[WorkerSignal], Awaitable[None]]


class Worker(Protocol):
    """A worker that was asked for, from the moment of asking."""

    worker_id: str

    def send(self, frame: Frame) -> bool:
        """Queue a frame; never blocks. False: it certainly did not reach the worker, which is gone or on its way.

        A worker whose bounded queue overflows is ended (`STALLED`).
        """
        ...

    def kill(self) -> None:
        """End the whole process group now. `WorkerGone` follows."""
        ...

    def shutdown(self, grace_seconds: float) -> None:
        """Ask it to end by itself, SIGKILL to the group after the grace. `WorkerGone` follows."""
        ...


class Adopted(msgspec.Struct, frozen=True):
    """A worker that an earlier supervisor of this host had started, and that had its handshake."""

    worker: Worker
    pid: int
    started_at: float
    capabilities: frozenset[str]


class Workers(Protocol):
    def start(self, request: WorkerRequest, deliver: Deliver) -> Worker:
        """Begin to start a worker; returns at once. `deliver` may wait: the worker's output waits with it."""
        ...

    def adopt(self, ref: ConversationRef, live_run: RunRecord | None, deliver: Deliver) -> Adopted | None:
        """The worker that has the live run, if an earlier supervisor left it; any other of this conversation is ended.

        Its signals go on at once. None: there is none, or it cannot be talked to any more.
        """
        ...


class FileMark(msgspec.Struct, frozen=True):
    """Identity of a session file's content as far as the file system tells without reading it."""

    inode: int
    size: int
    modified_ns: int


class OutputEntry(msgspec.Struct, frozen=True):
    """Something in output/. `unfit` says why it cannot be taken, None when it can."""

    name: str
    size: int
    inode: int
    unfit: str | None = None


class OutputUnreadable(Exception):
    """A listed file is not what it was; the message completes the sentence "… was not taken: …"."""


class Workspace(Protocol):
    """The folder of one conversation. Opened beneath the state folder without following links."""

    async def prepare(self) -> FileMark | None:
        """Make it if absent, empty input/, output/ and temp/; gives the session file's mark, None when absent."""
        ...

    async def write_session(self, data: bytes | None) -> FileMark | None:
        """Put the session file in place, fsynced; None removes it."""
        ...

    async def read_session(self) -> tuple[bytes, FileMark] | None:
        """The session file's bytes. None when there is none. Raises SessionFileInvalid."""
        ...

    async def append_input(self, name: str, data: bytes, offset: int) -> None:
        """Add a piece to a file in input/; it is made by the first, at offset 0. `name` is one part of a path.

        Raises OSError.
        """
        ...

    async def list_output(self) -> list[OutputEntry]:
        """What lies in output/, by name. Raises OSError."""
        ...

    async def read_output(self, entry: OutputEntry, offset: int, length: int) -> bytes:
        """That many bytes of a listed file. Raises OutputUnreadable, OSError."""
        ...

    async def remove(self) -> None:
        """Delete the whole folder."""
        ...


def is_disk_full(error: Exception) -> bool:
    """There is no room on the disk, or this process may use no more of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class SessionFileInvalid(Exception):
    """The session file is a link, no regular file, or larger than the limit; the message says which."""


class Workspaces(Protocol):
    def of(self, ref: ConversationRef) -> Workspace: ...

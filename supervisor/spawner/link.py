"""The supervisor's spawner: finds the one that runs or starts one, hands out processes, sees to its end.

Owns the socket file and the life of the spawner process. `run` is a supervised child. A spawner that a dead supervisor
left serves on with all its workers; `running` are these. When the spawner dies, its workers are ended, their holders
are told, and `run` raises, so that the tree starts it again; `spawn` then works as before.

The caller holds the state directory's lock: nobody else connects, and whoever connected before is gone.

Where a service manager runs the spawner (`managed`), its socket and its life are the service manager's: `run` connects,
never starts, asks to end or cleans up after one.
"""

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import structlog
import trio

from supervisor.spawner import protocol
from supervisor.spawner.connection import Connection, SpawnedProcess, SpawnerLost
from supervisor.spawner.program import COMMAND, RECORDS_NAME
from supervisor.spawner.records import Records

UP_SECONDS = 10.0  # from starting the program to its first words
END_SECONDS = 2.5  # from asking it to end to SIGKILL
ABANDON_SECONDS = 60.0
SILENT_SECONDS = 8.0  # less than a worker may take to start
SOCKET_NAME = "socket"
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "TMPDIR")
_BACKLOG = 8

_log = structlog.get_logger()


class Context(Protocol):
    """What a supervised child is given; the runtime's `ChildContext` is one."""

    @property
    def stopping(self) -> trio.Event: ...

    def started(self, value: object = None) -> None: ...


class SpawnerLink:
    """Starts processes through a spawner. One object for the supervisor's whole life; `run` may be called again.

    `folder` has the spawner's socket and records; `abandon_seconds` is how long the workers go on without a supervisor,
    `silent_seconds` after what silence a spawner of our own is taken for stuck, ended and replaced. (A service manager
    has a watchdog of its own.)
    """

    def __init__(
        self,
        folder: Path,
        *,
        managed: bool = False,
        abandon_seconds: float = ABANDON_SECONDS,
        silent_seconds: float = SILENT_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._folder = folder
        self._managed = managed
        self._records = Records(folder / RECORDS_NAME)
        self._abandon_seconds = abandon_seconds
        self._silent_seconds = silent_seconds
        self._command = tuple(command)
        self.on_frozen: Callable[[], None] = lambda: None  # the spawner froze the workers: see `trust`
        self._connection: Connection | None = None
        self._changed = trio.Event()
        self._preloads: tuple[protocol.Preload, ...] = ()
        self._trusted_until: float | None = None

    @property
    def pid(self) -> int | None:
        """The spawner's, while it serves."""
        return None if self._connection is None else self._connection.pid

    async def run(self, context: Context) -> None:
        """Serve until an ordered stop, which ends a spawner of our own. Raises SpawnerLost when it ends before."""
        async with self._to_managed() if self._managed else self._connected() as connection:
            await self._serve(context, connection)
        if not context.stopping.is_set():
            raise SpawnerLost("The spawner ended.")

    def take_running(self) -> list[SpawnedProcess]:
        """The workers of an earlier supervisor; they are the caller's from now on. Call it once `run` has started."""
        if self._connection is None:
            return []
        found, self._connection.running = self._connection.running, []
        return found

    async def spawn(self, request: protocol.Spawn) -> SpawnedProcess:
        """Start a process, waiting for the spawner while it is being restarted; the caller bounds the wait.

        Raises SpawnFailed, SpawnerLost. When cancelled, the process is ended as soon as it exists.
        """
        while self._connection is None:
            await self._changed.wait()
        return await self._connection.spawn(request)

    def relabel(self, worker_id: str, label: str) -> None:
        """Replace what the next supervisor is told of a worker; nothing when it is gone. Never blocks."""
        if self._connection is not None:
            self._connection.relabel(worker_id, label)

    def preload(self, programs: Sequence[protocol.Preload]) -> None:
        """Have zygotes of these programs kept ready, by this spawner and those after it. Never blocks."""
        self._preloads = tuple(programs)
        if self._connection is not None:
            self._connection.preload(self._preloads)

    def trust(self, until: float) -> None:
        """Have the workers frozen at `until` (time.monotonic()) unless a later time is said before. Never blocks."""
        self._trusted_until = until
        if self._connection is not None:
            self._connection.trust(until)

    def freeze(self) -> None:
        """Freeze the workers now, which needs no spawner that answers; `thaw` is what lets them go on. Never blocks."""
        if self._connection is not None:
            self._connection.freeze()

    def thaw(self, until: float | None) -> None:
        """Let frozen workers go on, until then (None: for good). Never blocks."""
        self._trusted_until = until
        if self._connection is not None:
            self._connection.thaw(until)

    def kill(self, worker_id: str) -> None:
        """SIGKILL to the whole process group of a worker; nothing when it is gone. Never blocks."""
        if self._connection is not None:
            self._connection.kill(worker_id)

    def end(self, process: SpawnedProcess) -> None:
        """As `kill`, directly too, which needs no spawner that answers. Its descriptors are the caller's to close."""
        process.kill()
        self.kill(process.worker_id)  # for a group whose leader just ended

    # --- the spawner process

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """A connection to the spawner; nothing of it is left when the context ends, in whatever way."""
        process: trio.Process | None = None
        link = self._connect()
        try:
            if link is None:
                process = await self._start()
                link = self._connect()
            if link is None:
                raise SpawnerLost("The spawner's socket is not there.")
            try:
                with self._connection_over(link) as connection:
                    try:
                        yield connection
                    finally:
                        connection.request_end()  # else it would wait for the next supervisor
            finally:
                with trio.move_on_after(END_SECONDS, shield=True):
                    await _wait_for_end(connection.pid)
        finally:
            with trio.move_on_after(2 * END_SECONDS, shield=True):
                await trio.to_thread.run_sync(self._records.end_left_over)  # a spawner that still runs, too
                if process is not None:
                    process.kill()  # one that was not on record yet
                    await process.wait()
            with suppress(OSError):
                os.unlink(self._folder / SOCKET_NAME)

    @asynccontextmanager
    async def _to_managed(self) -> AsyncIterator[Connection]:
        """The service manager holds the socket, so connecting starts a spawner that does not run."""
        link = self._connect()
        if link is None:
            raise SpawnerLost("Nobody listens for the spawner; start its socket unit.")
        with self._connection_over(link) as connection:
            yield connection

    @contextmanager
    def _connection_over(self, link: socket.socket) -> Iterator[Connection]:
        """Lost when the context ends, in whatever way."""
        connection = Connection(link, lambda: self.on_frozen())
        try:
            yield connection
        finally:
            self._connection = None
            connection.lose()

    def _connect(self) -> socket.socket | None:
        """None when no spawner listens."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short_path(self._folder) as folder:
                link.connect(f"{folder}/{SOCKET_NAME}")
        except (FileNotFoundError, ConnectionRefusedError):
            link.close()
            return None
        return link

    async def _start(self) -> trio.Process:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # which keeps other users off the socket
        # The supervisor's secrets stay out of the environment that a worker could read in /proc.
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        arguments = ("--folder", str(self._folder / RECORDS_NAME), "--abandon-seconds", str(self._abandon_seconds))
        with self._listen() as listener:
            return await trio.lowlevel.open_process(
                [*self._command, *arguments, "--listen-fd", str(listener.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                env=environment,
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's business
            )

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _short_path(self._folder) as folder:
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{SOCKET_NAME}")
            listener.bind(f"{folder}/{SOCKET_NAME}")
        listener.listen(_BACKLOG)
        return listener

    async def _serve(self, context: Context, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, context, connection, nursery.cancel_scope)
            if not self._managed:
                nursery.start_soon(self._watch, connection, nursery.cancel_scope)
            await connection.serve()
            nursery.cancel_scope.cancel()
        if not context.stopping.is_set():
            _log.error("spawner.lost", workers=len(connection.processes))

    async def _watch(self, connection: Connection, serving: trio.CancelScope) -> None:
        """A spawner that stands still starts no worker, and would freeze none when the host is not trusted any more."""
        await connection.stuck(self._silent_seconds)
        _log.error("spawner.stuck", silent_seconds=self._silent_seconds, spawner=connection.pid)
        serving.cancel()

    async def _announce(self, context: Context, connection: Connection, serving: trio.CancelScope) -> None:
        with trio.move_on_after(UP_SECONDS) as scope:
            await connection.up()
        if scope.cancelled_caught:
            raise SpawnerLost(f"The spawner said nothing for {UP_SECONDS:g} s.")
        if connection.running:
            _log.info("workers.found", number=len(connection.running), spawner=connection.pid)
        if self._trusted_until is not None:  # what the one before was told
            connection.trust(self._trusted_until)
        connection.preload(self._preloads)
        self._connection = connection
        self._changed.set()
        self._changed = trio.Event()
        context.started()
        await context.stopping.wait()
        self._connection = None
        if not self._managed:
            connection.request_end()
            await trio.sleep(END_SECONDS)
        serving.cancel()


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The folder under a name that fits into a socket's address (108 bytes), however long its own is."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


async def _wait_for_end(pid: int) -> None:
    """Of a spawner that may be another supervisor's child; its link is closed and it was asked to end, or failed."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):  # it is gone, or never said its number
        return
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)

"""The supervisor's spawner: starts the program, restarts with the supervisor tree, hands out processes.

Owns the life of the spawner process. `run` is a supervised child: when the spawner dies, it ends the workers that it
left behind, tells their holders, and raises, so that the tree starts it again; `spawn` then works as before.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

import structlog
import trio

from supervisor.spawner import protocol
from supervisor.spawner.connection import Connection, SpawnedProcess, SpawnerLost
from supervisor.spawner.stray import end_marked

UP_SECONDS = 10.0  # from starting the program to its first word
END_SECONDS = 2.5  # from asking it to end, or closing its link, to SIGKILL
# -P: the folder that the supervisor was started in must not be searched for modules.
COMMAND = (sys.executable, "-P", "-m", "supervisor.spawner")
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "TMPDIR")

_log = structlog.get_logger()


class Context(Protocol):
    """What a supervised child is given; the runtime's `ChildContext` is one."""

    @property
    def stopping(self) -> trio.Event: ...

    def started(self, value: object = None) -> None: ...


class SpawnerLink:
    """Starts processes through a spawner. One object for the supervisor's whole life; `run` may be called again."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = tuple(command)
        self._connection: Connection | None = None
        self._changed = trio.Event()
        self.pid: int | None = None

    async def run(self, context: Context) -> None:
        """Run a spawner until an ordered stop. Raises SpawnerLost when it ends before; its workers are ended then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection = Connection(ours)
        process: trio.Process | None = None
        try:
            with theirs:
                process = await self._start(theirs)
            await self._serve(context, connection)
            if not context.stopping.is_set():
                raise SpawnerLost("The spawner ended.")
        finally:
            self._connection = None
            self.pid = None
            worker_ids = connection.worker_ids
            connection.lose()
            if process is not None:
                with trio.move_on_after(2 * END_SECONDS, shield=True):
                    await _reap(process)
                    if worker_ids:
                        await end_marked(worker_ids)

    async def spawn(self, request: protocol.Spawn) -> SpawnedProcess:
        """Start a process, waiting for the spawner while it is being restarted; the caller bounds the wait.

        Raises SpawnFailed, SpawnerLost. When cancelled, the process is ended as soon as it exists.
        """
        while self._connection is None:
            await self._changed.wait()
        return await self._connection.spawn(request)

    def kill(self, worker_id: str) -> None:
        """SIGKILL to the whole process group of a worker; nothing when it is gone. Never blocks."""
        if self._connection is not None:
            self._connection.kill(worker_id)

    def signal(self, worker_id: str, number: int) -> None:
        """Any signal to the whole process group of a worker; nothing when it is gone. Never blocks."""
        if self._connection is not None:
            self._connection.signal(worker_id, number)

    async def _start(self, theirs: socket.socket) -> trio.Process:
        # The supervisor's secrets stay out of the environment that a worker could read in /proc.
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return await trio.lowlevel.open_process(
            [*self._command, "--socket-fd", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is the supervisor's business
        )

    async def _serve(self, context: Context, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, context, connection, nursery.cancel_scope)
            await connection.serve()
            nursery.cancel_scope.cancel()
        if not context.stopping.is_set():
            _log.error("spawner.lost", workers=len(connection.processes))

    async def _announce(self, context: Context, connection: Connection, serving: trio.CancelScope) -> None:
        with trio.fail_after(UP_SECONDS):
            self.pid = await connection.up()
        self._connection = connection
        self._changed.set()
        self._changed = trio.Event()
        context.started()
        await context.stopping.wait()
        self._connection = None
        connection.request_end()
        await trio.sleep(END_SECONDS)
        serving.cancel()


async def _reap(process: trio.Process) -> None:
    """The link is closed, so the spawner ends its workers and itself; SIGKILL when it does not."""
    with trio.move_on_after(END_SECONDS):
        await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

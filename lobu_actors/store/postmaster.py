"""What is running on a data directory: reads `postmaster.pid` and /proc, finds or ends a server that an earlier life
left.

Knows nothing of how a server is started. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec
import trio

from lobu_actors.store.errors import EmbeddedServerError

IMMEDIATE_SECONDS = 10.0
POLL_SECONDS = 0.02


class PidFile(msgspec.Struct, frozen=True):
    """The lines of `postmaster.pid` that matter here. A server that is still starting has written only some."""

    pid: int
    pgdata: Path | None  # the directory that it was written for
    socket_dir: Path | None
    ready: bool


def read_pid_file(pgdata: Path) -> PidFile | None:
    """None when there is none, or when it is being written, or was when the power failed."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    place, socket_dir = (Path(lines[at]) if len(lines) > at and lines[at] else None for at in (1, 4))
    return PidFile(abs(pid), place, socket_dir, len(lines) > 7 and lines[7].strip() == "ready")


def processes_of(pgdata: Path) -> list[int]:
    """Processes of a server on this directory: postmaster and children work in it, and their program is `postgres`."""
    home = os.path.realpath(pgdata)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/cwd") == home and _program(entry) == "postgres":
                    found.append(int(entry))
    return found


def _program(pid: str) -> str:
    return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")


class EarlierServer:
    """A running server that is not our child, but an earlier life's. It is known by a pidfd, and nobody hears its exit
    status."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None: there is no such process."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None

    @classmethod
    def found(cls, pid: int, pgdata: Path, command: Sequence[str], uid: int) -> Self | None:
        """That process, if it is exactly this command, on this data, as this user, of a program that is still there."""
        server = None
        with contextlib.suppress(OSError):  # no such number, or no room: then it is ended as any other
            server = cls.of(pid)
        if server is None:
            return None
        try:
            process = Path(f"/proc/{pid}")
            is_it = (
                os.readlink(process / "exe") == os.path.realpath(command[0])
                and os.readlink(process / "cwd") == os.path.realpath(pgdata)
                and process.stat().st_uid == uid
                and (process / "cmdline").read_bytes() == b"".join(os.fsencode(part) + b"\0" for part in command)
            )
        except OSError:
            is_it = False
        if is_it and server.running:  # so it was the same process all the while
            return server
        server.close()
        return None

    @property
    def running(self) -> bool:
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def send_signal(self, number: signal.Signals) -> None:
        """Raises ProcessLookupError."""
        signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> None:
        """Until it has ended. As of a child, by as many at once as want to, so each has a descriptor."""
        descriptor = os.dup(self._descriptor)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Forget it, running or not."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


async def end_earlier_server(pgdata: Path, timeout_seconds: float) -> str | None:
    """Stop a server that outlived its starter, wait for its children, remove a pid file that would keep the next away.

    The pid file also holds the key of the shared memory, by which a starting server sees that orphaned children of a
    dead one still use the data, and cleans up after it. So one whose process is dead is left to the server; one whose
    number is taken by another program, which the server would mistake for its like, is removed, as is one that names no
    process (empty, say, since the power failed), and only when no process works in the directory any more.
    Gives what was done, for the log. Raises EmbeddedServerError when something does not end.
    """
    found = await trio.to_thread.run_sync(read_pid_file, pgdata)
    running = await trio.to_thread.run_sync(processes_of, pgdata)
    done = None
    if found is not None and found.pid in running:
        done = f"stopped a server (pid {found.pid}) that was still running on this data"
        await _stop_foreign(found.pid, timeout_seconds)
    with trio.move_on_after(timeout_seconds) as scope:
        while True:
            if not await trio.to_thread.run_sync(processes_of, pgdata):
                break
            await trio.sleep(POLL_SECONDS)
    if scope.cancelled_caught:
        raise EmbeddedServerError(f"processes of an earlier database server still use {pgdata}; end them first")
    if await trio.to_thread.run_sync(_remove_misleading_pid_file, pgdata):
        done = done or "removed the pid file of a server that is gone"
    return done


def _remove_misleading_pid_file(pgdata: Path) -> bool:
    path, found = pgdata / "postmaster.pid", read_pid_file(pgdata)
    names_the_dead = found is not None and found.pid > 0 and not os.path.exists(f"/proc/{found.pid}")
    if names_the_dead or not path.exists():
        return False
    path.unlink(missing_ok=True)
    return True


async def _stop_foreign(pid: int, timeout_seconds: float) -> None:
    """Fast, then immediate: both leave data that the next start recovers."""
    server = EarlierServer.of(pid)
    if server is None:
        return
    with contextlib.closing(server):
        for number, seconds in ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, IMMEDIATE_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                server.send_signal(number)
            with trio.move_on_after(seconds) as scope:
                await server.wait()
            if not scope.cancelled_caught:
                return
    raise EmbeddedServerError(f"an earlier database server (pid {pid}) does not stop; end it first")

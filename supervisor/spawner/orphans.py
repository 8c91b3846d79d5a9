"""Finds and ends what a worker left behind: processes that left its group, its session, or both.

The spawner is a child subreaper, so every descendant of a worker whose own parent died becomes the spawner's child. A
child that leads no worker is therefore an orphan of one. When the orphan is killed, its children come here in turn, so
a sweep at each end of a worker and of an orphan reaches the whole tree without reading all of /proc.

Owns whose orphan a process is. Must not know of requests, replies or pipes.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection

from supervisor.spawner.protocol import MARK
from supervisor.spawner.strays import end_all_of, uid_of

_PR_SET_CHILD_SUBREAPER = 36
_PARENT_FIELD = 1  # of /proc/<pid>/stat, counted from the state
_SESSION_FIELD = 3


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _stat_field(pid: int, field: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read().rpartition(b")")[2].split()[field])
    except OSError:
        return None


def children() -> list[int]:
    """The pids of this single-threaded process's children, zombies too."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _stat_field(pid, _PARENT_FIELD) == own
        ]


def session_of(pid: int) -> int | None:
    """The session that a process is in; None when it is gone."""
    return _stat_field(pid, _SESSION_FIELD)


def mark_of(pid: int) -> str | None:
    """The worker id in a process's environment; None when it has none or may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
    except OSError:
        return None
    prefix = MARK.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


class Orphans:
    """Which orphan belongs to which workers. A pid here stays ours until it is reaped, so it cannot be another's."""

    def __init__(self) -> None:
        self._owners: dict[int, set[str]] = {}

    def reaped(self, pid: int) -> None:
        """Forget a process that was reaped."""
        self._owners.pop(pid, None)

    def sweep(
        self, workers: dict[int, str], zygotes: dict[int, str] | None = None, ordered: Collection[str] = ()
    ) -> None:
        """SIGKILL to every orphan that none of the living `workers` (pid of the leader to id) can own.

        `zygotes` own what is in their session. `ordered` are workers that a zygote forks just now, so that a process
        may be one before anyone knows its pid.
        """
        living = {*workers.values(), *ordered}
        leaders = workers | (zygotes or {})
        users: set[int] = set()
        for pid in children():
            if pid in leaders:
                continue
            owners = self._owners.get(pid)
            if owners is None:
                owners = self._owners[pid] = self._owners_of(pid, leaders, living, ordered)
            owners &= living.union(leaders.values())
            if not owners:
                if (uid := uid_of(pid)) is not None:
                    users.add(uid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        if users:
            for uid in users.difference(map(uid_of, leaders)):
                end_all_of(uid)

    def _owners_of(
        self, pid: int, leaders: dict[int, str], living: Collection[str], ordered: Collection[str]
    ) -> set[str]:
        uid = uid_of(pid)
        if uid not in (None, os.geteuid()):
            # A worker's user is its alone: what runs as that user is its own, whatever it says of itself. One that
            # is being forked may have its user already.
            return {*ordered, *(name for leader, name in leaders.items() if uid_of(leader) == uid)}
        session = session_of(pid)
        if session in leaders:
            return {leaders[session]}
        mark = mark_of(pid)
        # Without a mark it may be anyone's who lives now: it ends with the last of them.
        return set(living) if mark is None else {mark}

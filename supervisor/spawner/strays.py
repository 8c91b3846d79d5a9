"""Ends all that a worker's user runs beneath this spawner, also when it forks faster than it can be killed.

Killing one by one frees a place among its processes for the next fork. So first nobody may fork any more: a process
whose limit of processes is 0 cannot, and its user cannot raise it again. Once a look finds none without that limit,
no new one can come, and all are killed. Needs root, and a user that is one worker's alone.

Between a look and what follows from it a pid may be given anew, in the time in which the kernel gives all others.
"""

import contextlib
import os
import resource
import signal

MAX_LOOKS = 100
_STATE_FIELD, _PARENT_FIELD = 0, 1  # of /proc/<pid>/stat, counted from the state
_ENDED = b"ZX"


def end_all_of(uid: int) -> None:
    """SIGKILL to every descendant of this process that runs as `uid`; nothing for root and this process's own."""
    if uid in (0, os.geteuid()):
        return
    stopped: set[int] = set()
    for _ in range(MAX_LOOKS):
        new = _descendants(uid) - stopped
        if not new:
            break
        for pid in new:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
        stopped |= new
    for pid in _descendants(uid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def uid_of(pid: int) -> int | None:
    """Whose rights a process has; None when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


def _descendants(uid: int) -> set[int]:
    """Those of them that live."""
    own = os.getpid()
    parents = {pid: parent for pid in _of_user(uid) if (parent := _parent_of(pid)) is not None}
    found: set[int] = set()
    for pid in parents:
        line = []
        at: int | None = pid
        while at is not None and at not in (own, 1) and at not in found and at not in line:
            line.append(at)
            at = parents[at] if at in parents else _parent_of(at)
        if at == own or at in found:
            found.update(line)
    return found & parents.keys()


def _of_user(uid: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and uid_of(int(name)) == uid]


def _parent_of(pid: int) -> int | None:
    """None when it is gone, or as good as."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE_FIELD] in _ENDED else int(fields[_PARENT_FIELD])

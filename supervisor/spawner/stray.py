"""After a spawner died: ends whatever its workers left behind, found by the mark in its environment.

Slow (reads all of /proc, in a thread) and rare. Owns only that search; knows nothing of links or workers.
"""

import contextlib
import os
import signal
from collections.abc import Collection

import trio

from supervisor.spawner.orphans import mark_of

_PASSES = 5  # a process may fork while we look; each pass sees the children of the one before


async def end_marked(worker_ids: Collection[str]) -> None:
    """SIGKILL to every process that carries the mark of one of these workers."""
    await trio.to_thread.run_sync(_end_marked, frozenset(worker_ids), abandon_on_cancel=True)


def _end_marked(worker_ids: frozenset[str]) -> None:
    for _pass in range(_PASSES):
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        if sum(_end_if_marked(pid, worker_ids) for pid in processes) == 0:
            return


def _end_if_marked(pid: int, worker_ids: frozenset[str]) -> bool:
    if mark_of(pid) not in worker_ids:
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Looked at again through the pidfd's lifetime: the pid could have become another process's in between.
        if mark_of(pid) in worker_ids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        return False
    finally:
        os.close(pidfd)

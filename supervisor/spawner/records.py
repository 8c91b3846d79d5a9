"""What this host runs, on disk: one small file a worker, so that a later life can end what an earlier one left.

Owns the form of the records and the ending of what they name. Standard library only: the spawner calls it before it
serves, the supervisor after its spawner died. Every worker is identified by pid AND start time AND boot, never by name;
what left a worker's session is found by the mark in its environment.
"""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import NamedTuple

from supervisor.spawner.launch import started_at
from supervisor.spawner.orphans import mark_of, session_of

SPAWNER = "spawner"  # in place of a worker id
PASSES = 5  # a process may fork while we look; each pass sees the children of the one before
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Record(NamedTuple):
    """A worker's leader, whose process group and session have its pid as their number; or the spawner itself."""

    worker_id: str
    pid: int
    started_at: float  # seconds since boot


class Records:
    """The records of one spawner folder. A file that cannot be written costs a line of the log, not the worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boot_id = _boot_id()

    def open(self) -> None:
        """Make the folder and put the calling process on record, as the spawner. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.add(Record(SPAWNER, os.getpid(), started_at(os.getpid())))

    def add(self, record: Record) -> None:
        """Raises OSError."""
        (self._folder / record.worker_id).write_text(json.dumps([self._boot_id, record.pid, record.started_at]))

    def remove(self, worker_id: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._folder / worker_id)

    def read(self) -> list[Record]:
        """Those of this boot; the others, and what is no record, are removed."""
        found: list[Record] = []
        if not self._folder.is_dir():
            return found
        for path in self._folder.iterdir():
            try:
                boot_id, pid, started = json.loads(path.read_text())
                record = Record(path.name, int(pid), float(started))
            except (OSError, ValueError, TypeError):
                boot_id, record = "", None
            if record is not None and boot_id == self._boot_id:
                found.append(record)
            else:
                self.remove(path.name)
        return found

    def end_left_over(self) -> int:
        """SIGKILL to every process of a recorded worker, then forget the records; gives how many processes that were.

        Only for who knows that no spawner serves this folder: the holder of the state directory's lock.
        """
        records = self.read()
        ended: set[int] = set()
        for _pass in range(PASSES if records else 0):
            if not (found := _end_all(records)) - ended:
                break
            ended |= found
        for record in records:
            self.remove(record.worker_id)
        return len(ended)


def _end_all(records: list[Record]) -> set[int]:
    marks = {record.worker_id for record in records}
    # A number whose process is another one by now names nothing of ours.
    sessions = {record.pid for record in records if _start_of(record.pid) in (None, record.started_at)}
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and _end_if_of(int(name), marks, sessions)}


def _end_if_of(pid: int, marks: set[str], sessions: set[int]) -> bool:
    if not _is_of(pid, marks, sessions):
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # Looked at again through the pidfd's lifetime: the pid could have become another process's in between.
        if _is_of(pid, marks, sessions):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        return False
    finally:
        os.close(pidfd)


def _is_of(pid: int, marks: set[str], sessions: set[int]) -> bool:
    return pid in sessions or session_of(pid) in sessions or mark_of(pid) in marks


def _start_of(pid: int) -> float | None:
    try:
        return started_at(pid)
    except (OSError, IndexError):
        return None


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""

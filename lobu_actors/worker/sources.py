"""The files that a process was made of, and whether one of them has been changed since.

Owns what counts as the code of a process: the file of each loaded module, the main script among them. Loaded by
zygotes only.
"""

import os
import sys
import time

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_START_TIME_FIELD = 19  # of /proc/self/stat, counted from the state

_Mark = tuple[int, int, int] | None


class Sources:
    """The files of all modules that are loaded now."""

    def __init__(self) -> None:
        modules = list(sys.modules.values())
        paths = {getattr(module, "__dict__", {}).get("__file__") for module in modules}
        self._marks = {path: _mark(path) for path in map(_absolute, paths) if path is not None}

    def changed(self) -> str | None:
        """A file that is not what it was; None when all are."""
        return next((path for path, mark in self._marks.items() if _mark(path) != mark), None)

    def changed_while_loading(self) -> str | None:
        """A file that was written since this process started, so that what is loaded may be what it was before."""
        since, now = _process_start_ns(), time.time_ns()
        return next((path for path, mark in self._marks.items() if mark and since < mark[0] <= now), None)


def _absolute(path: object) -> str | None:
    return os.path.abspath(path) if isinstance(path, str) else None


def _mark(path: str) -> _Mark:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _process_start_ns() -> int:
    """By the clock that files are dated with; up to a tick late, never early."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        ticks = int(file.read().rpartition(b")")[2].split()[_START_TIME_FIELD]) + 1
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 1_000_000_000 // _TICKS_PER_SECOND
    return time.time_ns() - age_ns

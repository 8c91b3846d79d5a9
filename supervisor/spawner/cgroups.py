"""A control group for each worker, where the spawner's own was delegated to it: what is in it ends in one write.

Owns the groups beneath the delegated one. No controllers: what is wanted is membership, which no process can leave by
forking, making a session or clearing its environment. Where nothing is delegated, process groups, sessions and marks
find what a worker left (`orphans`, `strays`), and still do for what it forked before it was put in here.
"""

import contextlib
import os
from pathlib import Path

_PREFIX = "worker-"
# What systemd marks a group with that it gave away (Delegate=yes).
_MARKS = ("user.delegate", "trusted.delegate")


class Cgroups:
    """`top` is the delegated group; None: there is none, and every method does nothing."""

    def __init__(self, top: Path | None) -> None:
        self._top = top
        self._ended: set[str] = set()

    def enter(self, worker_id: str, pid: int) -> None:
        """Put a worker that was just started into a group of its own. Raises OSError."""
        if self._top is None:
            return
        group = self._group(worker_id)
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(pid))

    def end(self, worker_id: str) -> None:
        """SIGKILL to all that is in it, also to what forks meanwhile; the empty group goes with `sweep`."""
        if self._top is None:
            return
        with contextlib.suppress(OSError):  # it was never made
            (self._group(worker_id) / "cgroup.kill").write_text("1")
            self._ended.add(worker_id)

    def sweep(self) -> None:
        """Remove the groups of ended workers that are empty by now."""
        for worker_id in list(self._ended):
            try:
                self._group(worker_id).rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # not empty yet
                continue
            self._ended.discard(worker_id)

    def end_left_over(self) -> None:
        """Of all groups that a spawner before this one left here."""
        for group in self._top.glob(f"{_PREFIX}*") if self._top is not None else ():
            self.end(group.name.removeprefix(_PREFIX))

    def _group(self, worker_id: str) -> Path:
        assert self._top is not None
        return self._top / f"{_PREFIX}{worker_id}"


def own_group() -> Path | None:
    """This process's own control group of version 2; None where there are none."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        own = Path("/proc/self/cgroup").read_text().splitlines()
        mount = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
        path = next(line.removeprefix("0::") for line in own if line.startswith("0::"))
    except (OSError, StopIteration, IndexError):
        return None
    return Path(mount + path)


def delegated() -> Path | None:
    """This process's own control group, if it was given away to it."""
    top = own_group()
    if top is None:
        return None
    for mark in _MARKS:
        with contextlib.suppress(OSError):
            if os.getxattr(top, mark) == b"1":
                return top
    return None

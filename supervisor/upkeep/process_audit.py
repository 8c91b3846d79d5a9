"""Invariant I8 on this host: what is left over of one state directory's processes, descriptors and temporary files.

Workers are found by what stands in their environment: the spawner's mark, and a workspace beneath the state directory.
A spawner is the subreaper of all that its workers start, so whatever lives without one among its ancestors was left
behind by a spawner that died, and whatever lives under one without its worker's leader was missed by it.

Between the end of a process and the end of what it leaves behind there is a moment, longer on a busy machine, so all
but files is looked at again and again while something is there, and only what is there each time counts. Reads /proc
and folders; ends nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import msgspec
import trio

from supervisor.spawner.protocol import MARK

SPAWNER_MODULE = "supervisor.spawner"
SETTLE_SECONDS = 0.5
MOST_LOOKS = 6
TEMPORARY_AGE_SECONDS = 60.0  # a session file is written in less, or its temporary file is left over
MAX_LEFTOVERS = 100
_PARENT, _SESSION = 1, 3  # fields of /proc/<pid>/stat, counted from the state


class Leftover(msgspec.Struct, frozen=True):
    """`kind`: orphan, without-worker, zombie, descriptor or temporary-file."""

    kind: str
    detail: str
    pid: int | None = None


class Process(msgspec.Struct, frozen=True):
    pid: int
    state: str
    parent: int
    session: int
    mark: str | None  # of ours only


@attrs.define
class ProcessVerdict:
    checked: Counter[str] = attrs.field(factory=Counter)
    leftovers: list[Leftover] = attrs.field(factory=list)


async def settle() -> None:
    await trio.sleep(SETTLE_SECONDS)


async def audit_processes(state_dir: Path, *, between_looks: Callable[[], Awaitable[None]] = settle) -> ProcessVerdict:
    """Look at most MOST_LOOKS times, with some time between; no more when there is nothing left to see."""
    verdict = ProcessVerdict()
    found = await trio.to_thread.run_sync(_look, state_dir, verdict.checked)
    for _ in range(MOST_LOOKS - 1):
        if not found:
            break
        await between_looks()
        again = set(await trio.to_thread.run_sync(_look, state_dir, Counter()))
        found = [leftover for leftover in found if leftover in again]
    files = await trio.to_thread.run_sync(_temporary_files, state_dir / "workspaces", verdict.checked)
    verdict.leftovers = [*found, *files][:MAX_LEFTOVERS]
    return verdict


def _look(state_dir: Path, checked: Counter[str]) -> list[Leftover]:
    workspaces = f"{os.path.realpath(state_dir)}/workspaces/", f"{os.path.abspath(state_dir)}/workspaces/"
    processes = {process.pid: process for process in _processes(workspaces)}
    ours = [process for process in processes.values() if process.mark is not None]
    checked["process"] += len(ours)
    found: list[Leftover] = []
    spawners: set[int] = set()
    for process in ours:
        spawner = _spawner_above(process, processes)
        if spawner is None:
            found.append(Leftover("orphan", f"{_told(process)} has no living spawner", process.pid))
            continue
        spawners.add(spawner)
        if not any(other.mark == process.mark and other.session == other.pid for other in ours):
            found.append(Leftover("without-worker", f"{_told(process)} outlived its worker", process.pid))
    holder = lock_holder(state_dir)
    if holder is not None:
        spawners |= {p.pid for p in processes.values() if p.parent == holder and _is_spawner(p.pid)}
    found += [
        Leftover("zombie", f"an ended child of spawner {process.parent} that was never reaped", process.pid)
        for process in processes.values()
        if process.state == "Z" and process.parent in spawners
    ]
    for pid in sorted({*spawners, *([] if holder is None else [holder])}):
        found += _dead_pidfds(pid, checked)
    return found


def _processes(workspaces: tuple[str, ...]) -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        mark = _mark_of(int(name), workspaces)
        yield Process(int(name), fields[0].decode(), int(fields[_PARENT]), int(fields[_SESSION]), mark)


def _mark_of(pid: int, workspaces: tuple[str, ...]) -> str | None:
    """The worker id of a process of this state directory."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = dict(entry.partition(b"=")[::2] for entry in file.read().split(b"\0"))
    except OSError:
        return None
    mark = environment.get(MARK.encode())
    workspace = os.fsdecode(environment.get(b"WORKSPACE_DIR", b""))
    return os.fsdecode(mark) if mark is not None and workspace.startswith(workspaces) else None


def _spawner_above(process: Process, processes: dict[int, Process]) -> int | None:
    seen: set[int] = set()
    pid = process.parent
    while pid in processes and pid not in seen:  # a pid may be given anew while we look
        if processes[pid].mark is None and _is_spawner(pid):
            return pid
        seen.add(pid)
        pid = processes[pid].parent
    return None


def _is_spawner(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return any(words[i : i + 2] == [b"-m", SPAWNER_MODULE.encode()] for i in range(len(words)))


def _told(process: Process) -> str:
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            command = file.read(200).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = ""
    return f"{command or 'a process'} (worker {process.mark})"


def _dead_pidfds(pid: int, checked: Counter[str]) -> Iterator[Leftover]:
    """Descriptors of processes that were reaped: whoever held them has forgotten to close them."""
    try:
        names = os.listdir(f"/proc/{pid}/fdinfo")
    except OSError:
        return
    checked["descriptor"] += len(names)
    for name in names:
        try:
            with open(f"/proc/{pid}/fdinfo/{name}", "rb") as file:
                lines = file.read().split(b"\n")
        except OSError:
            continue
        if b"Pid:\t-1" in lines:
            yield Leftover("descriptor", f"descriptor {name} is a pidfd of a process that is gone", pid)


def lock_holder(state_dir: Path) -> int | None:
    """The process that holds the state directory, None when nobody does. The lock itself is not touched: for a moment
    it would keep a starting `lobu run` out."""
    path = state_dir / "lock"
    try:
        text = path.read_bytes()[:32].strip()
        lock = path.stat()
        folder = f"/proc/{int(text)}/fd"
        names = os.listdir(folder)
    except (OSError, ValueError):
        return None
    for name in names:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"{folder}/{name}"), lock):
                return int(text)
    return None


def _temporary_files(workspaces: Path, checked: Counter[str]) -> list[Leftover]:
    """What an interrupted write of a session file left."""
    found: list[Leftover] = []
    oldest = time.time() - TEMPORARY_AGE_SECONDS
    try:
        entries = os.scandir(workspaces)
    except OSError:
        return found
    with entries:
        for workspace in entries:
            checked["workspace"] += 1
            folder = os.path.join(workspace.path, ".openclaw")
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                path = os.path.join(folder, name)
                if name.startswith(".session.jsonl.") and _older(path, oldest) and len(found) < MAX_LEFTOVERS:
                    found.append(Leftover("temporary-file", path))
    return found


def _older(path: str, than: float) -> bool:
    try:
        return os.lstat(path).st_mtime < than
    except OSError:
        return False

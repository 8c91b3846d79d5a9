"""Idle workers kept ready: started before anybody asks, given to one conversation each, never to two.

A supervised part of `WorkerProcesses`. Owns how many there are of each type: `WorkerType.warm` of those whose type was
used lately, none while memory is short. An idle worker has no conversation: its workspace is a link that leads nowhere
until it is given away. Nobody reads from it before that either, so what it says waits in its socket.
"""

import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog
import trio

from lobu_actors.contract.ids import new_id
from supervisor.spawner.connection import SpawnedProcess, SpawnerLost, SpawnFailed
from supervisor.spawner.link import SpawnerLink
from supervisor.spawner.protocol import Spawn
from supervisor.workers.slots import Slots
from supervisor.workers.types import WorkerLimits, WorkerType

START_SECONDS = 30.0
LOOK_SECONDS = 5.0  # between two looks at the memory and at what is not used
PAUSE_SECONDS = 10.0  # after an idle worker ended by itself, or could not be started

_log = structlog.get_logger()

# What an idle worker of a type is started with, from its id and token. Raises SpawnFailed, OSError.
Launch = Callable[[WorkerType, str, str], Awaitable[Spawn]]


class WarmWorker(msgspec.Struct, frozen=True):
    """An idle worker; who takes it owns its process and its slot."""

    worker_id: str
    token: str
    process: SpawnedProcess
    programs: tuple[tuple[int, int], ...]  # of its type's files, as they were when it was started


class WarmPool:
    """`take` may be called at any time; `run` keeps the numbers."""

    def __init__(
        self,
        link: SpawnerLink,
        types: Mapping[str, WorkerType],
        launch: Launch,
        release: Callable[[str], None],
        slots: Slots,
        limits: WorkerLimits,
    ) -> None:
        self._link = link
        self._types = types
        self._launch = launch
        self._release = release
        self._slots = slots
        self._limits = limits
        self._idle: dict[str, list[WarmWorker]] = {}
        self._used_at: dict[str, float] = {}
        self._paused_until: dict[str, float] = {}
        self._changed = trio.Event()
        self._versions: Counter[str] = Counter()  # of types

    async def run(self) -> None:
        """Until it is cancelled; what is idle ends then."""
        now = time.monotonic()
        self._used_at = {name: now for name, kind in self._types.items() if kind.warm}
        try:
            while True:
                self._changed = trio.Event()
                await self._adjust()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._changed.wait()
        finally:
            for name in list(self._idle):
                self.drop(name)

    def take(self, name: str) -> WarmWorker | None:
        """An idle worker of a type, that nobody else is given; None when there is none."""
        if name not in self._used_at:
            return None
        self._used_at[name] = time.monotonic()
        self._changed.set()
        programs = _programs(self._types[name])
        if any(warm.programs != programs for warm in self._idle.get(name, ())):
            self.drop(name)
        idle = self._idle.get(name)
        if not idle:
            return None
        warm = idle.pop(0)
        warm.process.on_exit = None
        return warm

    def make_room(self) -> bool:
        """Somebody is asked for and there is no slot: end one idle worker. False: there is none."""
        for idle in self._idle.values():
            if idle:
                self._end(idle.pop())
                return True
        return False

    def drop(self, name: str) -> None:
        """End all idle workers of a type: what they were made of has changed, or there are too many."""
        for warm in self._idle.pop(name, []):
            self._end(warm)
        self._changed.set()

    def changed(self, name: str) -> None:
        """A type is not what it was, or is new."""
        self._versions[name] += 1
        if self._types[name].warm:
            self._used_at.setdefault(name, time.monotonic())
        self._paused_until.pop(name, None)
        self.drop(name)

    @property
    def idle(self) -> int:
        return sum(map(len, self._idle.values()))

    async def _adjust(self) -> None:
        short = memory_is_short(self._limits.warm_free_memory)
        for name, used_at in list(self._used_at.items()):
            unused = time.monotonic() - used_at > self._limits.warm_unused_seconds
            if short or unused:
                if self._idle.get(name):
                    _log.info("workers.trimmed", worker=name, reason="memory is short" if short else "not used")
                    self.drop(name)
                continue
            while len(self._idle.get(name, ())) < self._types[name].warm and await self._add(self._types[name]):
                pass

    async def _add(self, kind: WorkerType) -> bool:
        """One more; False when it must wait."""
        if time.monotonic() < self._paused_until.get(kind.name, 0.0):
            return False
        if not self._slots.take_nowait():
            return False
        worker_id, token, version = new_id(), secrets.token_urlsafe(32), self._versions[kind.name]
        process: SpawnedProcess | None = None
        try:
            with trio.fail_after(START_SECONDS):
                programs = _programs(kind)
                process = await self._link.spawn(await self._launch(kind, worker_id, token))
        except (SpawnFailed, SpawnerLost, OSError, trio.TooSlowError) as error:
            self._pause(kind.name, str(error) or f"it was not there within {START_SECONDS:g} s")
        finally:
            if process is None:
                self._release(worker_id)
                self._slots.give_back()
        if process is None:
            return False
        warm = WarmWorker(worker_id, token, process, programs)
        if version != self._versions[kind.name]:  # it was made of what has changed meanwhile
            self._end(warm)
            return True
        self._idle.setdefault(kind.name, []).append(warm)
        process.on_exit = lambda: self._ended(kind.name, warm)
        if process.exit is not None:
            self._ended(kind.name, warm)
        return True

    def _ended(self, name: str, warm: WarmWorker) -> None:
        """By itself, or with its spawner."""
        if warm in self._idle.get(name, ()):
            self._idle[name].remove(warm)
            self._end(warm)
            self._pause(name, f"an idle worker ended: {warm.process.exit}")

    def _pause(self, name: str, reason: str) -> None:
        self._paused_until[name] = time.monotonic() + PAUSE_SECONDS
        _log.warning("worker.not_kept_warm", worker=name, reason=reason)

    def _end(self, warm: WarmWorker) -> None:
        warm.process.on_exit = None
        self._link.end(warm.process)
        warm.process.close()
        self._release(warm.worker_id)
        self._slots.give_back()


def memory_is_short(least_free: float) -> bool:
    """Whether less than this share of the machine's memory is available; False where the kernel does not say."""
    try:
        text = Path("/proc/meminfo").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines())
        total, available = (int(fields[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError, KeyError):
        return False
    return available < total * least_free


def _programs(kind: WorkerType) -> tuple[tuple[int, int], ...]:
    """What tells a changed program file from the one that runs. The SDK looks at the modules itself."""
    marks: list[tuple[int, int]] = []
    for path in kind.programs:
        try:
            found = Path(path).stat()
        except OSError:
            continue
        marks.append((found.st_mtime_ns, found.st_ino))
    return tuple(marks)

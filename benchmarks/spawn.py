"""Starting a worker: forked from a zygote beside executed, what an idle one costs, how many live at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import attrs
import trio

from benchmarks import floors
from benchmarks.histogram import Histogram
from benchmarks.kinds import Bench
from benchmarks.results import Figure, Latency, Result
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import WorkerReady, WorkerRequest, WorkerSignal
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.environment import worker_environment
from supervisor.workers.process import WorkerProcess
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.workspace import HostWorkspaces

WHAT = "request to `ready` of a worker, forked from a zygote beside executed; what an idle one occupies"
COMMAND = ("python", "-m", "lobu_actors.agents.echo")
KINDS = ("zygote", "exec")
ALIVE, FEW_ALIVE = 300, 10
IMPORTS = "import lobu_actors.agents.echo, lobu_actors.worker.blocking"
PRELOAD_SECONDS = 30.0
EVERY_SECONDS = 120.0
WARM_UP = 3
FLOOR_REPEAT = 300

Progress = Callable[[str], None]


def measure(bench: Bench) -> Result:
    """A spawner of its own, with no database and no HTTP."""
    bench.own_only("spawn")
    repeat, alive = bench.often(100, 5), FEW_ALIVE if bench.quick else ALIVE
    ready, uss, all_ready_seconds, all_uss, fork = trio.run(_starts, repeat, alive, bench.progress)
    imported = median(floors.start_of(IMPORTS, 5))
    latencies = [
        Latency("zygote, request to ready", Histogram(ready["zygote"]), {"fork": fork}),
        Latency("exec, request to ready", Histogram(ready["exec"]), {"start with imports": imported}),
    ]
    figures = [
        *(Figure(f"own memory, idle, {kind}", uss[kind] / 1e6, "MB") for kind in KINDS),
        Figure(f"{alive} at once, all ready after", all_ready_seconds, "s", alive * fork),
        Figure(f"{alive} at once, own memory together", sum(all_uss) / 1e6, "MB"),
        Figure(f"{alive} at once, the largest", max(all_uss) / 1e6, "MB"),
    ]
    return Result("spawn", WHAT, {"repeat": repeat, "alive": alive}, latencies, figures)


async def _starts(
    repeat: int, alive: int, progress: Progress
) -> tuple[dict[str, Sequence[float]], dict[str, int], float, list[int], float]:
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    uss: dict[str, int] = {}
    forks = bare_forks(FLOOR_REPEAT)
    async with _host() as host:
        await host.preloaded()
        for number in range(WARM_UP + repeat):
            for kind in KINDS:
                seconds, worker = await host.start(kind)
                taken[kind].append(seconds)
                assert worker.pid is not None
                uss.setdefault(kind, uss_of(worker.pid))
                await host.end(worker)
            if number % 20 == 0:
                progress(f"spawn: {number} of {WARM_UP + repeat} starts")
        begun = time.perf_counter()
        workers = await host.start_all(alive)
        all_ready_seconds = time.perf_counter() - begun
        all_uss = [uss_of(worker.pid) for worker in workers if worker.pid is not None]
    forks += bare_forks(FLOOR_REPEAT)
    ready: dict[str, Sequence[float]] = {kind: seconds[WARM_UP:] for kind, seconds in taken.items()}
    return ready, uss, all_ready_seconds, all_uss, median(forks)


def uss_of(pid: int) -> int:
    """Bytes that only this process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


# What a zygote has loaded, and nothing but a fork and one byte to tell of it.
_FORKS = """
import gc, os
from lobu_actors.agents import echo
from lobu_actors.worker import blocking, zygote
gc.collect()
gc.freeze()
while os.read(0, 1):
    pid = os.fork()
    if pid == 0:
        os.write(1, b"x")
        os._exit(0)
    os.waitpid(pid, 0)
"""


def bare_forks(repeat: int) -> list[float]:
    """Seconds from a byte that asks a loaded program to fork to a byte from its child."""
    program = [sys.executable, "-c", _FORKS]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    ask, answer = process.stdin.fileno(), process.stdout.fileno()

    def fork() -> None:
        os.write(ask, b"x")
        os.read(answer, 1)

    with process:
        floors.seconds_of(fork, WARM_UP)
        taken = []
        for _ in range(repeat):
            time.sleep(0.001)  # it has reaped the one before, which is not part of a fork
            taken += floors.seconds_of(fork, 1)
        process.stdin.close()
        process.wait()
    return taken


# --- a host without a database


@attrs.define
class _Context:
    stopping: trio.Event = attrs.field(factory=trio.Event)
    up: trio.Event = attrs.field(factory=trio.Event)

    def started(self, value: object = None) -> None:
        self.up.set()


@attrs.define
class _Host:
    workers: WorkerProcesses
    spawner_pid: Callable[[], int | None]
    number: int = 0

    async def preloaded(self) -> None:
        """Until there is a zygote that takes orders."""
        with trio.fail_after(PRELOAD_SECONDS):
            while not self._waits_for_orders():  # noqa: ASYNC110 - a spawner tells nobody
                await trio.sleep(0.05)

    async def start(self, kind: str) -> tuple[float, WorkerProcess]:
        begun = time.perf_counter()
        worker, ready = self._start(kind)
        with trio.fail_after(EVERY_SECONDS):
            await ready.wait()
        return time.perf_counter() - begun, worker

    async def start_all(self, number: int) -> list[WorkerProcess]:
        started = [self._start("zygote") for _ in range(number)]
        with trio.fail_after(EVERY_SECONDS):
            for _worker, ready in started:
                await ready.wait()
        return [worker for worker, _ready in started]

    async def end(self, worker: WorkerProcess) -> None:
        worker.kill()
        with trio.fail_after(EVERY_SECONDS):
            while worker.state != "gone":  # noqa: ASYNC110
                await trio.sleep(0.002)

    def _start(self, kind: str) -> tuple[WorkerProcess, trio.Event]:
        self.number += 1
        ready = trio.Event()

        async def deliver(signal: WorkerSignal) -> None:
            if isinstance(signal, WorkerReady):
                ready.set()

        ref = ConversationRef("bench", "agent", f"conversation-{self.number}")
        return self.workers.start(WorkerRequest(ref, kind, {}, {}, EVERY_SECONDS), deliver), ready

    def _waits_for_orders(self) -> bool:
        """A child of the spawner that was loaded as a zygote and leads no session is a worker without an order yet."""
        return any(map(_is_loaded, _children(self.spawner_pid())))


def _is_loaded(pid: int) -> bool:
    try:
        return os.getsid(pid) != pid and b"LOBU_ZYGOTE_FD" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended
        return False


def _children(pid: int | None) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@asynccontextmanager
async def _host() -> AsyncIterator[_Host]:
    with tempfile.TemporaryDirectory(prefix="lobu-bench-") as name:
        folder = Path(name)
        link = SpawnerLink(folder / "spawner")
        workspaces = HostWorkspaces(folder / "workspaces")
        types = {kind: WorkerType(kind, COMMAND, zygote=kind == "zygote") for kind in KINDS}
        workers = WorkerProcesses(
            link,
            types,
            workspaces,
            lambda workspace, token: worker_environment(
                workspace=workspace, dispatcher_url="http://bench", token=token, worker_env={}
            ),
            WorkerLimits(max_workers=ALIVE + 10),
        )
        of_link, of_workers = _Context(), _Context()
        async with trio.open_nursery() as link_nursery:
            link_nursery.start_soon(link.run, of_link)
            await of_link.up.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(workers.run, of_workers)
                await of_workers.up.wait()
                yield _Host(workers, lambda: link.pid)
                of_workers.stopping.set()
            of_link.stopping.set()
        workspaces.close()

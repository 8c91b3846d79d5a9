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
from typing import Any

import attrs
import trio

from benchmarks import floors
from benchmarks.http import Conversation
from benchmarks.results import Result, percentile
from benchmarks.server import FORKED_AGENT, Server
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import WorkerReady, WorkerRequest, WorkerSignal
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.environment import worker_environment
from supervisor.workers.process import WorkerProcess
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.workspace import HostWorkspaces

COMMAND = ("python", "-m", "lobu_actors.agents.echo")
KINDS = ("zygote", "exec")
ALIVE = 300
PRELOAD_SECONDS = 30.0
EVERY_SECONDS = 120.0
WARM_UP = 3
FLOOR_REPEAT = 300

Progress = Callable[[str], None]


@attrs.frozen
class Spawning:
    """Seconds from request to `ready` by kind; USS in bytes by kind; what `ALIVE` forked workers took together."""

    ready: dict[str, Sequence[float]]
    fork: float
    uss: dict[str, int]
    all_ready_seconds: float
    all_uss: Sequence[int]
    cold: dict[str, Result]

    def as_json(self) -> dict[str, Any]:
        def figures(seconds: Sequence[float]) -> dict[str, float]:
            return {f"p{part}_ms": round(percentile(seconds, part / 100) * 1e3, 3) for part in (50, 99)}

        return {
            "name": "spawn",
            "what": "request to `ready`, worker of the SDK",
            "repetitions": len(self.ready["zygote"]),
            **{kind: figures(self.ready[kind]) for kind in KINDS},
            "bare_fork_ms": round(self.fork * 1e3, 3),
            "p50_to_bare_fork": round(median(self.ready["zygote"]) / self.fork, 2),
            "uss_mb": {kind: round(self.uss[kind] / 1e6, 2) for kind in KINDS},
            "alive_at_once": len(self.all_uss),
            "all_ready_seconds": round(self.all_ready_seconds, 3),
            "all_uss_mb": round(sum(self.all_uss) / 1e6, 1),
            "largest_uss_mb": round(max(self.all_uss) / 1e6, 2),
            "cold": {kind: result.as_json() for kind, result in self.cold.items()},
        }

    def as_text(self) -> str:
        found = self.as_json()
        cold = "\n".join(result.as_text() for result in self.cold.values())
        return (
            f"spawn: {found['what']} ({found['repetitions']} times)\n"
            f"  zygote p50 {found['zygote']['p50_ms']:.2f} ms   p99 {found['zygote']['p99_ms']:.2f} ms\n"
            f"  exec   p50 {found['exec']['p50_ms']:.2f} ms   p99 {found['exec']['p99_ms']:.2f} ms\n"
            f"  bare fork of the same program {found['bare_fork_ms']:.2f} ms; p50 of zygote is "
            f"{found['p50_to_bare_fork']:.1f} times that\n"
            f"  memory of its own (USS), idle: zygote {found['uss_mb']['zygote']:.2f} MB   "
            f"exec {found['uss_mb']['exec']:.2f} MB\n"
            f"  {found['alive_at_once']} alive at once: all ready after {found['all_ready_seconds']:.2f} s, "
            f"{found['all_uss_mb']:.0f} MB together, {found['largest_uss_mb']:.2f} MB the largest\n{cold}"
        )


def spawn(server: Server, repeat: int, progress: Progress) -> Spawning:
    """The server is for the cold conversations; the rest has a spawner of its own, with no database and no HTTP."""
    ready, uss, all_ready_seconds, all_uss, fork = trio.run(_starts, repeat, progress)
    cold = {kind: _cold(server, kind, max(10, repeat // 2), progress) for kind in KINDS}
    return Spawning(ready, fork, uss, all_ready_seconds, all_uss, cold)


async def _starts(
    repeat: int, progress: Progress
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
        workers = await host.start_all(ALIVE)
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
        loaded = (pid for pid in _children(self.spawner_pid()) if os.getsid(pid) != pid)
        return any(b"LOBU_ZYGOTE_FD" in Path(f"/proc/{pid}/environ").read_bytes() for pid in loaded)


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


# --- a conversation without a worker


def _cold(server: Server, kind: str, repeat: int, progress: Progress) -> Result:
    """The first message of a conversation to the first piece of the reply, at the client."""
    before = floors.loopback_request(FLOOR_REPEAT), floors.commit(server.database_url(), FLOOR_REPEAT)
    taken = []
    for number in range(WARM_UP + repeat):
        conversation = Conversation(
            server.port, server.key, f"cold-{time.time_ns()}", FORKED_AGENT if kind == "zygote" else None
        )
        begun = time.perf_counter()
        conversation.send("hello")
        taken.append(conversation.wait_for("output") - begun)
        conversation.wait_for("complete")
        conversation.close()
        if number % 10 == 0:
            progress(f"spawn: {number} of {WARM_UP + repeat} cold conversations ({kind})")
    after = floors.loopback_request(FLOOR_REPEAT), floors.commit(server.database_url(), FLOOR_REPEAT)
    request, commit = (median(one + other) for one, other in zip(before, after, strict=True))
    path = {
        "request": request,
        "3 commits": 3 * commit,
        "fork": median(bare_forks(FLOOR_REPEAT)),
        "event to reader": request / 2,
    }
    what = "first message to first piece of the reply, no worker yet"
    return Result(f"cold, {kind}", what, taken[WARM_UP:], path)

"""Real spawner, real worker processes: a running `WorkerProcesses` and what a conversation would do with a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from lobu_actors.contract.frames import Complete, Delta, Fail, Frame, TurnFrame
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import WorkerFrames, WorkerGone, WorkerReady, WorkerRequest, WorkerSignal
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.environment import worker_environment
from supervisor.workers.process import WorkerProcess
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workspaces.workspace import HostWorkspaces

PATIENCE = 60.0  # for what should take milliseconds: workers are nice, and wait where others are busy
PATIENT = WorkerLimits(killed_seconds=PATIENCE)  # a spawner that stands still for a while is no hanging one


class ChildContext:
    """Stands for the supervisor tree's context."""

    def __init__(self) -> None:
        self.stopping = trio.Event()
        self.up = trio.Event()

    def started(self, value: object = None) -> None:
        self.up.set()


class Client:
    """The conversation's side of one worker."""

    def __init__(self, capacity: float = 10_000) -> None:
        self.send, self.signals = trio.open_memory_channel[WorkerSignal](capacity)
        self.worker: WorkerProcess
        self.pid = 0
        self.ref: ConversationRef
        self.runs = 0

    async def next(self) -> WorkerSignal:
        with trio.fail_after(PATIENCE):
            return await self.signals.receive()

    async def ready(self) -> WorkerReady:
        signal = await self.next()
        assert isinstance(signal, WorkerReady), signal
        self.pid = signal.pid
        return signal

    def turn(self, text: str, attempt: int = 1) -> str:
        self.runs += 1
        run_id = f"run-{self.runs}"
        messages = [{"messageId": f"m{self.runs}", "content": text}]
        self.worker.send(TurnFrame(run_id=run_id, attempt=attempt, messages=messages, run_token="token"))
        return run_id

    async def frames_until(self, *kinds: type[Frame]) -> list[Frame]:
        """All frames up to the first signal that has one of these kinds."""
        found: list[Frame] = []
        while not any(isinstance(frame, kinds) for frame in found):
            signal = await self.next()
            assert isinstance(signal, WorkerFrames), signal
            found += signal.frames
        return found

    async def reply(self, text: str) -> str:
        """Run one turn; the text of its deltas. Fails unless it completes."""
        self.turn(text)
        found = await self.frames_until(Complete, Fail)
        assert isinstance(found[-1], Complete), found
        return text_of(found)

    async def gone(self) -> WorkerGone:
        """The last signal; what comes before it is left out."""
        with trio.fail_after(PATIENCE):  # for all of it: heartbeats may go on for ever
            while True:
                signal = await self.next()
                if isinstance(signal, WorkerGone):
                    return signal

    async def assert_nothing_more(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            self.signals.receive_nowait()


def text_of(frames: list[Frame]) -> str:
    return "".join(frame.text for frame in frames if isinstance(frame, Delta))


class Host:
    """Link and workers under a nursery that restarts the link as the supervisor tree would."""

    def __init__(
        self,
        folder: Path,
        limits: WorkerLimits | None = None,
        types: dict[str, WorkerType] | None = None,
        silent_seconds: float = PATIENCE,
    ) -> None:
        self.types = types or {
            "echo": WorkerType("echo", ("python", "-m", "lobu_actors.agents.echo")),
            "absent": WorkerType("absent", ("no-such-program",)),
            "quits": WorkerType("quits", ("sh", "-c", "exit 3")),
            "mute": WorkerType("mute", ("sleep", "1000")),
        }
        self.worker_env: dict[str, str] = {}
        self.workspaces = HostWorkspaces(folder / "workspaces")
        self.link = SpawnerLink(folder / "spawner", silent_seconds=silent_seconds)
        self.limits = limits or PATIENT
        self.workers = WorkerProcesses(self.link, self.types, self.workspaces, self.environment_of, self.limits)
        self.link_context = ChildContext()
        self.workers_context = ChildContext()
        self.link_failures: list[BaseException] = []
        self.conversations = 0

    def environment_of(self, workspace: str, token: str) -> dict[str, str]:
        return worker_environment(
            workspace=workspace, dispatcher_url="http://public.test", token=token, worker_env=self.worker_env
        )

    def start(
        self,
        worker: str = "echo",
        *,
        startup_seconds: float = PATIENCE,
        deliver: Callable[[WorkerSignal], Awaitable[None]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Client:
        client = self.client()
        request = self.request(worker, startup_seconds, settings)
        client.ref = request.ref
        client.worker = self.workers.start(request, deliver or client.send.send)
        return client

    def client(self) -> Client:
        return Client()

    def request(
        self, worker: str = "echo", startup_seconds: float = PATIENCE, settings: dict[str, Any] | None = None
    ) -> WorkerRequest:
        """For a conversation of its own."""
        self.conversations += 1
        ref = ConversationRef("org", "agent", f"conversation-{self.conversations}")
        return WorkerRequest(ref, worker, settings or {}, {}, startup_seconds)

    async def ready(self, worker: str = "echo") -> Client:
        client = self.start(worker)
        await client.ready()
        return client

    async def keep_link(self, *, task_status: trio.TaskStatus[None]) -> None:
        first = True
        while not self.link_context.stopping.is_set():
            context = self.link_context if first else ChildContext()
            context.stopping = self.link_context.stopping
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.link.run, context)
                    await context.up.wait()
                    if first:
                        task_status.started()
                        first = False
            except Exception as error:
                self.link_failures.append(error)


@pytest.fixture
def limits() -> WorkerLimits:
    return PATIENT


@pytest.fixture
def types() -> dict[str, WorkerType] | None:
    return None


@pytest.fixture
def silent_seconds() -> float:
    """After what silence a spawner is taken for stuck."""
    return PATIENCE


@pytest.fixture
async def host(
    tmp_path: Path, limits: WorkerLimits, types: dict[str, WorkerType] | None, silent_seconds: float
) -> AsyncIterator[Host]:
    found = Host(tmp_path, limits, types, silent_seconds)
    async with trio.open_nursery() as link_nursery:
        await link_nursery.start(found.keep_link)
        async with trio.open_nursery() as workers_nursery:
            workers_nursery.start_soon(found.workers.run, found.workers_context)
            with trio.fail_after(PATIENCE):
                await found.workers_context.up.wait()
            yield found
            found.workers_context.stopping.set()
        assert found.workers.snapshot() == ()
        found.link_context.stopping.set()
    found.workspaces.close()


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """True for a process that is there and no zombie."""

    def alive(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except FileNotFoundError:
            return False
        return state not in (b"Z", b"X")

    return alive


@pytest.fixture
def wait_for_end() -> Callable[[int], Awaitable[None]]:
    """Wait for the end of a process that is not our child."""

    async def wait(pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            with trio.fail_after(PATIENCE):
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    return wait


@pytest.fixture
def script(tmp_path: Path, host: Host) -> Callable[[str, str], str]:
    """Make a worker type of a Python program that speaks the bare protocol; gives its name."""

    def make(name: str, body: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(_PRELUDE + body)
        host.types[name] = WorkerType(name, (sys.executable, str(path)))
        return name

    return make


_PRELUDE = """
import json, os, socket, sys
link = socket.socket(fileno=int(os.environ["LOBU_WORKER_FD"]))
lines = link.makefile("r")
def say(type, **fields):
    link.sendall(json.dumps({"type": type, **fields}).encode() + b"\\n")
def hear():
    return json.loads(lines.readline())
hello = hear()
"""

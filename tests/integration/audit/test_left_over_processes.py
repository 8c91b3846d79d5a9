"""I8 with real processes: what a dead spawner left, what a living one missed, and that nothing healthy is accused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio

from supervisor.spawner import protocol
from supervisor.spawner.link import SpawnerLink
from supervisor.state_lock import state_lock
from supervisor.upkeep.process_audit import MOST_LOOKS, Leftover, audit_processes

PATIENCE = 20.0

# A spawner that does its work badly: it starts what it is told to, in sessions of their own or not, and reaps nothing.
BAD_SPAWNER = """
import json, os, subprocess, sys
children = [
    subprocess.Popen(each["argv"], env=each["env"], start_new_session=each["leads"])
    for each in json.loads(sys.argv[-1])
]
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lobu-test-"))
    (folder / "workspaces" / "one" / ".openclaw").mkdir(parents=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ended() -> Iterator[ExitStack]:
    """Processes that are put on it are ended whatever happens."""
    with ExitStack() as stack:
        yield stack


def environment(state_dir: Path, worker_id: str) -> dict[str, str]:
    workspace = str(state_dir / "workspaces" / "one")
    return {"PATH": os.environ["PATH"], protocol.MARK: worker_id, "WORKSPACE_DIR": workspace}


def start(stack: ExitStack, argv: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    stack.enter_context(process)
    stack.callback(process.kill)
    _wait_visible(process.pid)
    return process


def bad_spawner(stack: ExitStack, *children: dict[str, object]) -> tuple[int, list[int]]:
    """Its pid and its children's, who are ended with the test."""
    arguments = [sys.executable, "-c", BAD_SPAWNER, "-m", "supervisor.spawner", json.dumps(children)]
    process = start(stack, arguments)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    for pid in pids:
        stack.callback(_kill, pid)
        _wait_visible(pid)
    return process.pid, pids


def _wait_visible(pid: int) -> None:
    """A process is made before the kernel shows what it executes; an ended one shows nothing any more."""
    deadline = time.monotonic() + PATIENCE
    while not Path(f"/proc/{pid}/cmdline").read_bytes() and _state(pid) != "Z":
        assert time.monotonic() < deadline


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def leftovers(state_dir: Path) -> list[Leftover]:
    return (await audit_processes(state_dir, between_looks=trio.lowlevel.checkpoint)).leftovers


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_an_empty_state_directory_is_clean(state_dir: Path) -> None:
    verdict = await audit_processes(state_dir, between_looks=trio.lowlevel.checkpoint)
    assert verdict.leftovers == []
    assert verdict.checked["workspace"] == 1


async def test_a_state_directory_that_is_not_there_is_clean(tmp_path: Path) -> None:
    assert await leftovers(tmp_path / "absent") == []


async def test_a_worker_without_a_spawner_is_an_orphan(state_dir: Path, ended: ExitStack) -> None:
    orphan = start(ended, ["sleep", "1000"], environment(state_dir, "w1"))
    [found] = await leftovers(state_dir)
    assert (found.kind, found.pid) == ("orphan", orphan.pid)
    assert "sleep 1000 (worker w1)" in found.detail


async def test_what_belongs_to_another_state_directory_is_not_ours(state_dir: Path, ended: ExitStack) -> None:
    start(ended, ["sleep", "1000"], environment(state_dir / "elsewhere", "w1"))
    assert await leftovers(state_dir) == []


async def test_an_orphan_that_ends_between_the_looks_is_none(state_dir: Path, ended: ExitStack) -> None:
    orphan = start(ended, ["sleep", "1000"], environment(state_dir, "w1"))

    async def end_it() -> None:
        orphan.kill()
        orphan.wait()

    assert (await audit_processes(state_dir, between_looks=end_it)).leftovers == []
    assert orphan.returncode is not None  # it had been seen


async def test_what_is_cleared_late_is_none(state_dir: Path, ended: ExitStack) -> None:
    """By a spawner that waits for the processor as all others do."""
    env = environment(state_dir, "w1")
    worker = {"argv": ["sleep", "1000"], "env": env, "leads": True}
    outlived = {"argv": ["sleep", "1000"], "env": env | {protocol.MARK: "w2"}, "leads": False}
    _, [_, left] = bad_spawner(ended, worker, outlived)
    looks = 0

    async def clear_at_last() -> None:
        nonlocal looks
        looks += 1
        if looks == MOST_LOOKS - 1:
            os.kill(left, signal.SIGKILL)
            await until(lambda: _state(left) == "Z")

    assert (await audit_processes(state_dir, between_looks=clear_at_last)).leftovers == []
    assert looks == MOST_LOOKS - 1, "it had been seen each time before"


async def test_a_worker_of_a_living_spawner_is_none(state_dir: Path) -> None:
    class Context:
        def __init__(self) -> None:
            self.stopping, self.up = trio.Event(), trio.Event()

        def started(self, value: object = None) -> None:
            self.up.set()

    link, context = SpawnerLink(state_dir / "spawner"), Context()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, context)
        env = environment(state_dir, "ignored")
        del env[protocol.MARK]
        with trio.fail_after(PATIENCE):
            await context.up.wait()
            script = "setsid sleep 1000 & sleep 1000 & wait"
            process = await link.spawn(protocol.Spawn("w1", ["sh", "-c", script], env, "/"))
            verdict = await audit_processes(state_dir, between_looks=trio.lowlevel.checkpoint)
        assert verdict.leftovers == []
        assert verdict.checked["process"] >= 1
        process.kill()
        context.stopping.set()
    process.close()
    assert await leftovers(state_dir) == []


async def test_what_outlived_its_worker_is_found(state_dir: Path, ended: ExitStack) -> None:
    env = environment(state_dir, "w1")
    _, [left] = bad_spawner(ended, {"argv": ["sleep", "1000"], "env": env, "leads": False})
    [found] = await leftovers(state_dir)
    assert (found.kind, found.pid) == ("without-worker", left)


async def test_a_zombie_is_found(state_dir: Path, ended: ExitStack) -> None:
    env = environment(state_dir, "w1")
    worker = {"argv": ["sleep", "1000"], "env": env, "leads": True}
    spawner, [_, zombie] = bad_spawner(ended, worker, {"argv": ["true"], "env": env, "leads": True})
    await until(lambda: _state(zombie) == "Z")
    [found] = await leftovers(state_dir)
    assert (found.kind, found.pid) == ("zombie", zombie)
    assert str(spawner) in found.detail


async def test_a_forgotten_pidfd_is_found(state_dir: Path, ended: ExitStack) -> None:
    with state_lock(state_dir):
        before = await leftovers(state_dir)  # this process runs other tests, too
        child = start(ended, ["sleep", "1000"])
        pidfd = os.pidfd_open(child.pid)
        assert await leftovers(state_dir) == before
        child.kill()
        child.wait()
        [found] = [one for one in await leftovers(state_dir) if one not in before]
        os.close(pidfd)
        assert (found.kind, found.pid) == ("descriptor", os.getpid())
        assert str(pidfd) in found.detail
        assert await leftovers(state_dir) == before


async def test_a_left_over_temporary_file_is_found(state_dir: Path) -> None:
    young, old, session = (
        state_dir / "workspaces" / "one" / ".openclaw" / name
        for name in (".session.jsonl.aa", ".session.jsonl.bb", "session.jsonl")
    )
    for path in (young, old, session):
        path.write_text("x")
    os.utime(old, (1, 1))
    os.utime(session, (1, 1))
    assert await leftovers(state_dir) == [Leftover("temporary-file", str(old))]

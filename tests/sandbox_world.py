"""A host with contained workers: a real spawner, real sandboxes and users, in a folder that other users can reach.

The worker program runs Python code that it is told to run. Its interpreter is the system's where there is one, since a
development environment often lies in a home folder that is closed to other users.
"""

# ruff: noqa: ASYNC240 - it makes two folders, which never blocks
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trio

from supervisor.sandbox.destinations import Destination
from supervisor.sandbox.proxy import Clocks
from supervisor.workers.containment import Containment, Place
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from supervisor.workers.users import UidRange
from tests.integration.workers.conftest import PATIENCE, ChildContext, Client, Host

PROGRAM = Path(__file__).parent / "workers" / "runs_python.py"
PYTHON = next((path for path in ("/usr/bin/python3",) if os.access(path, os.X_OK)), "python")
# The kernel counts a user's processes on the whole machine: tests that run side by side have users of their own.
UIDS_APART = 10_000
UIDS = UidRange(1_910_000_000 + UIDS_APART * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]), 64)


@cache
def bwrap_missing() -> str:
    """Why sandboxes cannot be tested here; empty when they can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap is not installed (apt-get install bubblewrap)"
    words = [program, "--unshare-user", "--disable-userns", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc"]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, timeout=10)
    return "" if tried.returncode == 0 else f"this machine allows no sandboxes ({tried.stderr.strip()})"


class ContainedHost(Host):
    """`Host` whose workers are contained. `make` types before `serving`."""

    def __init__(self, folder: Path, limits: WorkerLimits | None = None, clocks: Clocks | None = None) -> None:
        super().__init__(folder, limits)
        self._clocks = clocks
        self.folder = folder
        self.program = folder.parent / "runs_python.py"
        shutil.copy(PROGRAM, self.program)
        self.program.chmod(0o644)
        self.types.clear()
        self.dispatcher = Destination("127.0.0.1", 1, private=True)

    def make(self, name: str, **settings: Any) -> str:
        """A worker type that runs Python code; gives its name."""
        settings.setdefault("command", (PYTHON, str(self.program)))
        self.types[name] = WorkerType(name, **settings)
        return name

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ContainedHost]:
        self.containment = Containment(
            self.link, self.types, self.workspaces, Place(self.folder, self.dispatcher), UIDS, self._clocks
        )
        self.workers = WorkerProcesses(
            self.link, self.types, self.workspaces, self.environment_of, self.limits, self.containment
        )
        contexts = [self.link_context, ChildContext(), self.workers_context]
        async with trio.open_nursery() as link_nursery:
            await link_nursery.start(self.keep_link)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.containment.run, contexts[1])
                with trio.fail_after(PATIENCE):
                    await contexts[1].up.wait()
                async with trio.open_nursery() as workers_nursery:
                    workers_nursery.start_soon(self.workers.run, self.workers_context)
                    with trio.fail_after(PATIENCE):
                        await self.workers_context.up.wait()
                    yield self
                    self.workers_context.stopping.set()
                assert self.workers.snapshot() == ()
                contexts[1].stopping.set()
            self.link_context.stopping.set()
        self.workspaces.close()

    async def run(self, client: Client, code: str) -> str:
        """What the worker printed."""
        return (await client.reply(code)).strip()


@asynccontextmanager
async def contained_host(
    make: Callable[[ContainedHost], object], limits: WorkerLimits | None = None, clocks: Clocks | None = None
) -> AsyncIterator[ContainedHost]:
    """A host with the types that `make` gives it, up and running; nothing is left of it."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-contained-"))
    folder.chmod(0o711)
    state_dir = folder / ".lobu"
    state_dir.mkdir(mode=0o700)
    try:
        host = ContainedHost(state_dir, limits, clocks)
        make(host)
        async with host.serving():
            yield host
    finally:
        shutil.rmtree(folder)

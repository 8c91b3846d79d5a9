"""A `lobu worker connect` beside a `lobu run`: a folder of its own, a key, a proxy between the two that can be cut."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from edge.tokens import new_api_key
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.states import Role
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import ApiKey
from tests.fakes.proxy import Proxy
from tests.system.lobu_process import LOBU, LobuRun, until

GRACE_SECONDS = 8
# Its turns run on another machine; what is local beside it is `echo`.
CONFIG = f"""
[limits]
drain_grace_seconds = 0.05

[workers.gpu]
remote = true
reconnect_seconds = {GRACE_SECONDS}

[[agents]]
id = "far"
worker = "gpu"
default = true
deadlines = {{ startup_seconds = 60 }}
"""
MORE_GRACE = CONFIG.replace(f"reconnect_seconds = {GRACE_SECONDS}", "reconnect_seconds = 60")
WORKER = ("python", "-m", "lobu_actors.agents.echo")


async def worker_key(run: LobuRun, kind: str = "gpu", organization: str = "local") -> str:
    """A key for remote workers of that type."""
    key, key_hash = new_api_key()
    store = PostgresStore.connect(run.database_url)
    try:
        await store.ensure_organization(organization)
        await store.put_api_key(ApiKey(key_hash, organization, kind, Role.WORKER, "test"))
    finally:
        store.close()
    return key


async def proxied(run: LobuRun, nursery: trio.Nursery) -> Proxy:
    """A way to `run` that can be cut."""
    proxy = Proxy(urlsplit(run.url).port or 0)
    await nursery.start(proxy.run)
    return proxy


@asynccontextmanager
async def joined(run: LobuRun, key: str, join: str) -> AsyncIterator[WebSocketConnection]:
    """A runner's connection, and its first message, by hand."""
    host = urlsplit(run.url).netloc
    stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(run.url).port or 0)
    async with stream, trio.open_nursery() as nursery:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        websocket = await wrap_client_stream(nursery, stream, host, link.PATH, extra_headers=headers)
        await websocket.send_message(join)
        yield websocket
        nursery.cancel_scope.cancel()


class RunnerProcess:
    def __init__(self, folder: Path, url: str, key: str, arguments: Sequence[str], program: Sequence[str]) -> None:
        self.folder = folder
        self.arguments = ["worker", "connect", url, "--type", "gpu", *arguments, "--", *program]
        (folder / "tmp").mkdir(exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"),
            "LOBU_WORKER_KEY": key,
            "WORKER_ENV_MARK": "of the runner",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with (self.folder / "out.log").open("ab") as out, (self.folder / "err.log").open("ab") as err:
            self._out_from = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, *LOBU, *self.arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    async def start(self) -> None:
        self.launch()
        await until(lambda: self.connected or self.main.poll() is not None, "it is let in")
        assert self.main.returncode is None, self.log()

    @property
    def main(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    async def ended(self, seconds: float = 30.0) -> int:
        await until(lambda: self.main.poll() is not None, f"the runner ends\n{self.log()}", seconds)
        return self.main.returncode

    @property
    def connected(self) -> bool:
        """It was let in since its last start."""
        return b"Connected to" in (self.folder / "out.log").read_bytes()[self._out_from :]

    def output(self) -> str:
        return (self.folder / "out.log").read_text()

    def errors(self) -> str:
        return (self.folder / "err.log").read_text()

    def log(self) -> str:
        return f"--- runner's stdout\n{self.output()[-4000:]}\n--- runner's stderr\n{self.errors()[-8000:]}"

    def pids(self) -> list[int]:
        """Everything that belongs to it, found by its folder."""
        mark = os.fsencode(self.folder)
        return [pid for pid in psutil.pids() if pid != os.getpid() and _belongs(pid, mark)]

    def worker_pids(self) -> list[int]:
        folder = os.fsencode(self.folder / ".lobu" / "workspaces")
        return [pid for pid in psutil.pids() if pid != os.getpid() and b"WORKSPACE_DIR=" + folder in _environ(pid)]

    async def kill_all(self) -> None:
        for _round in range(100):
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()
            await trio.sleep(0.01)
        if self.process is not None:
            self.process.wait(10)


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _belongs(pid: int, mark: bytes) -> bool:
    return mark in _environ(pid)


@asynccontextmanager
async def runner(
    run: LobuRun,
    *,
    url: str | None = None,
    key: str | None = None,
    arguments: Sequence[str] = (),
    program: Sequence[str] = WORKER,
    start: bool = True,
) -> AsyncIterator[RunnerProcess]:
    """A runner for `run`; whatever happens, no process and no folder of it stays."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-runner-"))
    found = RunnerProcess(folder, url or run.url, key or await worker_key(run), arguments, program)
    try:
        if start:
            await found.start()
        yield found
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await found.kill_all()
        shutil.rmtree(folder, ignore_errors=True)

"""A real `lobu run` in a folder of its own: started, watched, signalled, killed, and searched for what it left behind.

Every process of one run is found by the folder: it stands in its environment (TMPDIR for `lobu run` and the spawner,
WORKSPACE_DIR for workers and whatever they start), or it is where the process works (the database).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import psutil
import trio

from lobu_actors.store.embedded import running_url
from supervisor.spawner.records import SPAWNER

ADMIN_KEY = "lobu_system-test-admin-key"
LOBU = ("-m", "supervisor.cli.main")
POLL_SECONDS = 0.01
START_SECONDS = 90.0
EXIT_SECONDS = 60.0
REAP_SECONDS = 5.0
LOG_TAIL_CHARS = 6000
# What most runs are configured with. Further keys of its agent may follow it.
ECHO = """
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[[agents]]
id = "echo"
worker = "echo"
default = true
"""
_LISTENING = re.compile(r"Listening on (http://\S+)\n")  # a line that is not whole yet has half an address


async def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true; AssertionError naming `what` when it does not come true in time."""
    deadline = trio.current_time() + seconds
    while not condition():
        if trio.current_time() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await trio.sleep(POLL_SECONDS)


def free_port() -> int:
    """One that stays the caller's for as long as this process lives, also between two of its servers.

    What is bound and does not listen is given to nobody who asks for any port, and refuses connections; but who sets
    SO_REUSEADDR, as servers do, may listen there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    held.detach()
    return port


@attrs.frozen
class Found:
    pid: int
    command: str


class LobuRun:
    """One folder, and the `lobu run` that is started in it, maybe several times one after another."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        database_url: str | None = None,
        arguments: tuple[str, ...] = ("--port", "0"),
        environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = LOBU,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """`database_url` None: the embedded server. `environment` is added to the few variables that a run gets.
        `program`: what Python runs with the words `run …`, for a test with a `lobu` of its own. `prefix` goes before
        the command, and must become it: the process id is the run's."""
        self.folder = folder
        self.admin_key = ADMIN_KEY
        self._program = program
        self._prefix = prefix
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self._database_url = database_url
        (folder / "tmp").mkdir(exist_ok=True)
        if config:
            (folder / "lobu.toml").write_text(config)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TMPDIR": str(folder / "tmp"),
            "LOBU_ADMIN_KEY": ADMIN_KEY,
            **({"DATABASE_URL": database_url} if database_url else {}),
            **(environment or {}),
        }

    # --- its life

    async def start(self) -> None:
        """Ready to be talked to when it returns. AssertionError with the log when it is not in time."""
        self.launch()
        await self.wait_ready()

    def launch(self, terminal: int | None = None) -> None:
        """`terminal`: its controlling one, a file descriptor; else it has none."""
        assert self.process is None or self.process.returncode is not None, "it runs already"
        with (self.folder / "out.log").open("ab") as out, (self.folder / "err.log").open("ab") as err:
            self._out_from = out.tell()
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, *self._program, "run", *self.arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=None if terminal is None else partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
            )

    async def wait_ready(self, seconds: float = START_SECONDS) -> None:
        deadline = trio.current_time() + seconds
        while (found := _LISTENING.search(self.output())) is None:
            if self._main.poll() is not None:
                raise AssertionError(f"lobu run ended with {self._main.returncode} before it was ready\n{self.log()}")
            if trio.current_time() > deadline:
                raise AssertionError(f"lobu run was not ready within {seconds:g} s\n{self.log()}")
            await trio.sleep(POLL_SECONDS)
        self.url = found[1]

    async def wait_exit(self, seconds: float = EXIT_SECONDS) -> int:
        """Its exit code, negative for a signal."""
        with suppress(AssertionError):
            await until(lambda: self._main.poll() is not None, "lobu run ends", seconds)
        if self._main.returncode is None:
            raise AssertionError(f"lobu run did not end within {seconds:g} s\n{self.log()}")
        return self._main.returncode

    async def stop(self, seconds: float = EXIT_SECONDS) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return await self.wait_exit(seconds)

    def signal(self, number: signal.Signals) -> None:
        """To the main process only."""
        self._main.send_signal(number)

    async def kill_main(self) -> None:
        """SIGKILL to the main process only: what it started is not told."""
        self._main.kill()
        await self.wait_exit()

    async def kill_all(self) -> None:
        """SIGKILL to every process of the run, as a machine's power failure would. Returns when all are reaped."""
        killed: set[int] = set()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        for _round in range(50):
            found = self.processes()
            if not found:
                break
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.add(process.pid)
            await trio.sleep(POLL_SECONDS)
        if self.process is not None:
            await self.wait_exit()
        with suppress(AssertionError):  # where nobody reaps orphans
            await until(lambda: not any(map(psutil.pid_exists, killed)), "all are reaped", REAP_SECONDS)

    # --- what it consists of

    @property
    def pid(self) -> int:
        return self._main.pid

    @property
    def is_up(self) -> bool:
        """It runs and has said where it listens."""
        return self._main.poll() is None and _LISTENING.search(self.output()) is not None

    @property
    def _main(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "it was never started"
        return self.process

    def processes(self) -> list[Found]:
        """Every living process of this run, whoever its parent is now."""
        mark = os.fsencode(self.folder)
        return [Found(pid, _command(pid)) for pid in psutil.pids() if pid != os.getpid() and _belongs(pid, mark)]

    def spawner_pid(self) -> int | None:
        """It may be another life's child."""
        for found in self.processes():
            if "-m supervisor.spawner" in found.command:
                return found.pid
        return None

    def worker_pids(self) -> list[int]:
        """The leaders that the spawner has on record."""
        folder = self.folder / ".lobu" / "spawner" / "workers"
        found: list[int] = []
        for path in folder.iterdir() if folder.is_dir() else ():
            with suppress(OSError, ValueError):  # it ended meanwhile, or is being written
                if path.name != SPAWNER:
                    found.append(json.loads(path.read_text())[1])
        return found

    def postmaster_pid(self) -> int:
        return int((self.folder / ".lobu" / "pgdata" / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def database_url(self) -> str:
        found = self._database_url or running_url(self.folder)
        assert found is not None, "the embedded database is not running"
        return found

    # --- what it said

    def output(self) -> str:
        """Standard output since the last start."""
        with (self.folder / "out.log").open("rb") as out:
            out.seek(self._out_from)
            return out.read().decode()

    def errors(self) -> str:
        return (self.folder / "err.log").read_text(errors="replace")

    def log(self) -> str:
        """The ends of both outputs, for a failing test's message."""
        return f"--- stdout\n{self.output()[-LOG_TAIL_CHARS:]}\n--- stderr\n{self.errors()[-LOG_TAIL_CHARS:]}"


@asynccontextmanager
async def lobu_run(
    *,
    config: str = "",
    database_url: str | None = None,
    arguments: tuple[str, ...] = ("--port", "0"),
    environment: Mapping[str, str] | None = None,
    program: tuple[str, ...] = LOBU,
    prefix: tuple[str, ...] = (),
    start: bool = True,
) -> AsyncIterator[LobuRun]:
    """A run in a new folder; whatever happens, no process and no folder stays."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-system-"))
    run = LobuRun(
        folder,
        config=config,
        database_url=database_url,
        arguments=arguments,
        environment=environment,
        program=program,
        prefix=prefix,
    )
    try:
        if start:
            await run.start()
        yield run
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + EXIT_SECONDS):
            await run.kill_all()
        shutil.rmtree(folder, ignore_errors=True)


def _belongs(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read():
                return True
        return os.fsencode(os.readlink(f"/proc/{pid}/cwd")).startswith(mark)
    except OSError:  # gone, a zombie, or somebody else's
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""

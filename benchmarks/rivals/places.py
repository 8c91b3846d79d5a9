"""The Postgres that each contender gets new, and what a contender is to the runner: started, killed, looked into."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import attrs
import psutil
import trio

from benchmarks.server import FORKED, LIMITS, POLL_SECONDS, START_SECONDS, Server, free_port
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate

KEY = "rival_benchmark-key"
ROOT = Path(__file__).parents[2]
WORKER = "benchmarks/rivals/worker.py"
Processes = list[psutil.Process]


class Contender(Protocol):
    """A system under measurement, in a folder of its own, with a Postgres of its own."""

    name: str
    port: int
    key: str
    agent: str | None  # to name when a conversation is opened

    @property
    def url(self) -> str: ...

    def start(self) -> None:
        """Ready when it returns."""

    def kill_server(self) -> None:
        """SIGKILL to the process that clients are connected to, and only to it."""

    def kill_all(self) -> None: ...

    def servers(self) -> Processes:
        """All that is neither worker nor Postgres."""

    def workers(self) -> Processes: ...

    def log(self) -> str: ...


@attrs.frozen
class Engine:
    """A process that a rival's service needs beside it; it is up when it listens on `port`."""

    command: Sequence[str]
    port: int


class Rival:
    """A process that is started with a command line; its children are its workers if they run `worker.py`."""

    agent: str | None = None
    key = KEY

    def __init__(
        self,
        name: str,
        folder: Path,
        database: Postgres,
        command: Sequence[str],
        environment: Mapping[str, str],
        engine: Engine | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()  # the same one again after a restart
        self._folder = folder
        self.command = command
        self._log = folder / "log"
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "RIVAL_DATABASE": database.url,
            "RIVAL_DATABASE_PORT": str(database.port),
            "RIVAL_PORT": str(self.port),
            "RIVAL_KEY": KEY,
            "RIVAL_FOLDER": str(folder),  # and the mark of its processes
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._engine = engine
        self._engine_process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self._engine is not None and (self._engine_process is None or self._engine_process.poll() is not None):
            self._engine_process = self._run(self._engine.command, self._engine.port)
        self._process = self._run(self.command, self.port)

    def _run(self, command: Sequence[str], port: int) -> subprocess.Popen[bytes]:
        """When it listens."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=self._environment
            )
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.log()[-3000:]}")
            time.sleep(POLL_SECONDS)
        return process

    def kill_server(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        mine = [process for process in (self._process, self._engine_process) if process is not None]
        for child in mine:
            child.kill()
        while found := self._processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(POLL_SECONDS)
        for child in mine:
            child.wait()

    def servers(self) -> Processes:
        return [process for process in self._processes() if not _is_worker(process)]

    def workers(self) -> Processes:
        return [process for process in self._processes() if _is_worker(process)]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _processes(self) -> Processes:
        mark = f"RIVAL_FOLDER={self._folder}\0"
        found = []
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                living = process.status() != psutil.STATUS_ZOMBIE
                if living and mark in Path(f"/proc/{process.pid}/environ").read_text(errors="replace") + "\0":
                    found.append(process)
        return found


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(word.endswith(WORKER) for word in process.cmdline())
    return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Ours(Server):
    """`lobu run`, with the Postgres that everybody gets. Its workers are forked from a zygote."""

    name = "lobu"
    agent: str | None = FORKED
    CONFIG = (
        LIMITS
        + f"""
[workers.rivals]
command = ["python", "-m", "benchmarks.rivals.lobu"]
zygote = true
[[agents]]
id = "{FORKED}"
worker = "rivals"
default = true
"""
    )

    def __init__(self, folder: Path, database: Postgres) -> None:
        super().__init__(folder, self.CONFIG, database.url, {})
        trio.run(migrate, database.url)

    def kill_server(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def servers(self) -> Processes:
        found = self.by_part()
        return found["main"] + found["spawner"]

    def workers(self) -> Processes:
        return self.by_part()["workers"]


class Postgres:
    """With the settings of our embedded server: fsync and synchronous_commit are on. It listens on a unix socket, which
    is what `url` names, and on `port` of 127.0.0.1, for a driver that knows nothing else."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._server = EmbeddedServer(folder, settings={"listen_addresses": "127.0.0.1", "port": str(self.port)})

    @property
    def url(self) -> str:
        return f"{self._server.url}&port={self.port}"

    def processes(self) -> Processes:
        main = psutil.Process(self._server.pid)
        return [main, *main.children(recursive=True)]

    def start(self) -> None:
        trio.run(self._server.start)

    def stop(self) -> None:
        trio.run(self._server.stop, "immediate")


@contextmanager
def new_place() -> Iterator[tuple[Path, Postgres]]:
    """A folder and a new, running Postgres; both go at the end."""
    with tempfile.TemporaryDirectory(prefix="lobu-rival-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        (folder / "database").mkdir()
        (folder / "server").mkdir()
        database = Postgres(folder / "database")
        database.start()
        try:
            yield folder / "server", database
        finally:
            database.stop()


def cpu_seconds(processes: Processes) -> float:
    """Used so far by those that live, their ended children left out."""
    return sum(map(_cpu_seconds, processes))


def _cpu_seconds(process: psutil.Process) -> float:
    """Of its living threads, exactly, or of all that it ever had, in steps of 10 ms, whichever is more."""
    exact = 0.0
    for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            exact += int(path.read_text().split()[0]) / 1e9
    try:
        times = process.cpu_times()
    except psutil.Error:  # it has ended
        return 0.0
    return max(exact, times.user + times.system)

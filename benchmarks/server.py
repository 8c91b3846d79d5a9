"""What is measured: a server given by URL and key, or a `lobu run` of our own in a temporary folder.

An own server can be looked into (CPU by process, memory, bare commits on its own database) and killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import psutil
import trio

from lobu_actors.store.embedded import EmbeddedServer, running_url
from lobu_actors.store.migrate import migrate
from supervisor.spawner.records import SPAWNER

START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.005
KEY = "lobu_benchmark-admin-key"
LOBU = "supervisor.cli.main"
ROOT = Path(__file__).parents[1]
# Clients send all they can, and what was written is counted at the end.
LIMITS = """
[limits]
requests_per_second = 0
queue_max_turns = 100000
streams_per_conversation = 10000
max_workers = 1000
crash_loop_crashes = 100000
snapshot_max_segments = 1000000
retention_interval_seconds = 86400
"""
AGENTS = """
[workers.bench]
command = ["python", "-m", "benchmarks.agent"]
[[agents]]
id = "exec"
worker = "bench"
default = true
[workers.forked]
command = ["python", "-m", "benchmarks.agent"]
zygote = true
[[agents]]
id = "zygote"
worker = "forked"
"""
EXECUTED, FORKED = "exec", "zygote"  # ids of agents


@attrs.frozen
class Given:
    """Somebody's deployment. `database_url` is for bare commits only, and may be absent."""

    url: str
    key: str
    agent: str | None = None
    database: str | None = None


class Server:
    """A `lobu run` of our own. Use `own_server`."""

    def __init__(
        self,
        folder: Path,
        config: str,
        database_url: str | None,
        environment: Mapping[str, str],
        program: str = LOBU,
    ) -> None:
        self.folder = folder
        self._program = program
        self.key = KEY
        self._database_url = database_url
        self.port = free_port()  # the same one again after a restart
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "log"
        self._url_file = folder / ".lobu" / "gateway_url"
        (folder / "lobu.toml").write_text(config)
        (folder / "tmp").mkdir()
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("LOBU_", "DATABASE_"))}
        self._environment = {
            **theirs,
            "PYTHONPATH": str(ROOT),
            "LOBU_ADMIN_KEY": KEY,
            "TMPDIR": str(folder / "tmp"),
            **({"DATABASE_URL": database_url} if database_url else {}),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Ready when it returns."""
        self.launch()
        self.until_ready()

    def launch(self) -> None:
        """Begin to start it."""
        self._url_file.unlink(missing_ok=True)
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._program, "run", "--port", str(self.port)],
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self._environment,
            )

    def until_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._url_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server to measure did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """To the main process only."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> None:
        assert self.process is not None
        self.process.wait(STOP_SECONDS)

    def kill_all(self) -> None:
        """SIGKILL to all of it, as when the machine loses its power."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        while found := self.processes():
            for process in found:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(POLL_SECONDS)
        if self.process is not None:
            self.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    # --- what it consists of

    @property
    def database_url(self) -> str:
        """For measuring bare commits on the same server."""
        found = self._database_url or running_url(self.folder)
        if found is None:
            raise RuntimeError("the measured server's database is not running")
        return found

    def processes(self) -> list[psutil.Process]:
        """Every living process of it, whoever its parent is now: by the folder in its environment, or as its place."""
        return [process for process in psutil.process_iter() if _belongs(process, str(self.folder))]

    def by_part(self) -> dict[str, list[psutil.Process]]:
        """`main` (edge and supervisor), `spawner` (zygotes too), `workers`, `postgres`."""
        assert self.process is not None
        leaders = self._leaders()
        found: dict[str, list[psutil.Process]] = defaultdict(list)
        for process in self.processes():
            with suppress(psutil.Error, OSError):
                if process.pid == self.process.pid:
                    part = "main"
                elif process.name().startswith("postgres"):
                    part = "postgres"
                else:
                    part = "workers" if os.getsid(process.pid) in leaders else "spawner"
                found[part].append(process)
        return found

    def _leaders(self) -> set[int]:
        """Of workers' sessions, from the spawner's records."""
        found = set()
        for path in (self.folder / ".lobu" / "spawner" / "workers").glob("*"):
            with suppress(OSError, ValueError):  # it ended meanwhile, or is being written
                if path.name != SPAWNER and not path.name.startswith("zygote-"):
                    found.add(int(json.loads(path.read_text())[1]))
        return found

    def worker_pids(self) -> set[int]:
        """From the spawner's records: little work, however many there are."""
        return self._leaders()

    def cpu(self) -> dict[str, float]:
        """Seconds that each part has used, of the processes that live. Those of `main` in steps of 10 ms: what its
        threads used that have ended is in no finer account."""
        used: dict[str, float] = defaultdict(float)
        for part, processes in self.by_part().items():
            for process in processes:
                with suppress(psutil.Error, OSError):
                    times = process.cpu_times()
                    used[part] += times.user + times.system if part == "main" else nanoseconds(process.pid) / 1e9
        return used

    def wakeups(self) -> dict[str, int]:
        """Times that a thread of each part had to wait and was woken."""
        found: dict[str, int] = defaultdict(int)
        for part, processes in self.by_part().items():
            for process in processes:
                for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
                    with suppress(OSError):
                        lines = status.read_text().splitlines()
                        found[part] += int(next(one for one in lines if one.startswith("voluntary")).split()[1])
        return found

    def own_memory(self, part: str) -> list[int]:
        """USS in bytes of each process of a part, of those that live still."""
        return own_memory(self.by_part()[part])


def own_memory(processes: Iterable[psutil.Process]) -> list[int]:
    """USS in bytes of each, of those that live still."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            found.append(process.memory_full_info().uss)
    return found


def nanoseconds(pid: int) -> int:
    """On a CPU, of a process with one thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _belongs(process: psutil.Process, mark: str) -> bool:
    try:
        if mark in Path(f"/proc/{process.pid}/environ").read_text(errors="replace"):
            return process.status() != psutil.STATUS_ZOMBIE
        return process.cwd().startswith(mark)
    except (OSError, psutil.Error):  # gone, or somebody else's
        return False


@contextmanager
def own_server(
    config: str = LIMITS + AGENTS,
    *,
    database_url: str | None = None,
    environment: Mapping[str, str] | None = None,
    program: str = LOBU,
) -> Iterator[Server]:
    """Started, ready, and gone at the end with all that it started. `program`: the module that is run as `lobu`."""
    with tempfile.TemporaryDirectory(prefix="lobu-bench-", ignore_cleanup_errors=True) as name:
        server = Server(Path(name).resolve(), config, database_url, environment or {}, program)
        try:
            server.start()
            yield server
        finally:
            server.kill_all()


@contextmanager
def own_database() -> Iterator[str]:
    """The URL of a Postgres that no `lobu run` starts and stops."""
    with tempfile.TemporaryDirectory(prefix="lobu-bench-", ignore_cleanup_errors=True) as name:
        database = EmbeddedServer(Path(name).resolve())
        trio.run(database.start)
        try:
            trio.run(migrate, database.url)
            yield database.url
        finally:
            trio.run(database.stop, "immediate")


def free_port() -> int:
    """One on 127.0.0.1 that stays the caller's for as long as this process lives, also while a server is restarted.

    What is bound and does not listen is given to nobody who asks for any port, and refuses connections; but who sets
    SO_REUSEADDR, as servers do, may listen there.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    port: int = found.getsockname()[1]
    found.detach()
    return port

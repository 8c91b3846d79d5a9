"""Behind a real PgBouncer, where there is one: in transaction mode a host is refused, in session mode it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import trio

from lobu_actors.store.errors import SessionsShared
from lobu_actors.store.pooler import check_sessions
from tests.system.lobu_process import free_port, lobu_run

START_SECONDS = 60.0
PROGRAM = shutil.which("pgbouncer")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer: apt-get install pgbouncer")


@contextmanager
def pgbouncer(url: str, mode: str, **settings: object) -> Iterator[str]:
    """A pooler in front of a database, on 127.0.0.1; gives its URL."""
    at, port = urlsplit(url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="lobu-pgbouncer-"))
    config = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": mode,
        "ignore_startup_parameters": "extra_float_digits",
        **settings,
    }
    target = f"host={at.hostname} port={at.port} dbname={at.path[1:]} user={at.username}"
    lines = [
        "[databases]",
        f"pooled = {target}",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in config.items()),
    ]
    (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    folder.chmod(0o755)
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(
            [PROGRAM or "", str(folder / "pgbouncer.ini")],
            user="nobody" if os.geteuid() == 0 else None,  # root is refused
            stdout=out,
            stderr=out,
        )
    pooled = f"postgresql://{at.username}@127.0.0.1:{port}/pooled"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(pooled, prepare_threshold=None, connect_timeout=3).close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()  # noqa: PT018
                trio.run(trio.sleep, 0.05)
        yield pooled
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


async def test_the_server_itself_is_fine(tcp_url: str) -> None:
    await check_sessions(tcp_url)


@needs_pgbouncer
@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("settings", [{}, {"server_round_robin": 1}, {"default_pool_size": 1}])
def test_sessions_that_are_shared_are_found_out(tcp_url: str, mode: str, settings: dict[str, object]) -> None:
    with pgbouncer(tcp_url, mode, **settings) as pooled, pytest.raises(SessionsShared, match="pool in session mode"):
        trio.run(check_sessions, pooled)


@needs_pgbouncer
def test_a_pool_in_session_mode_is_fine(tcp_url: str) -> None:
    with pgbouncer(tcp_url, "session") as pooled:
        trio.run(check_sessions, pooled)


@needs_pgbouncer
def test_a_host_does_not_start_behind_one(tcp_url: str) -> None:
    async def start(pooled: str) -> str:
        async with lobu_run(database_url=pooled, start=False) as run:
            run.launch()
            assert await run.wait_exit() == 1
            return run.errors()

    with pgbouncer(tcp_url, "transaction") as pooled:
        said = [line for line in trio.run(start, pooled).splitlines() if line.startswith("lobu: ")]
    assert len(said) == 1
    assert "a pooler in transaction mode" in said[0]

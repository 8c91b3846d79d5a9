"""Several `lobu run` on one database: each a host with a folder and a port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress

import psutil
import trio

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from tests.conftest import TEST_SETTINGS, make_folder
from tests.system.lobu_process import LOBU, LobuRun, free_port, lobu_run

SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1", "LOBU_JWT_KEYS": f"k:{'s' * 40}"}  # one key, so that they link
STOP_SECONDS = 90.0  # longer than the server gives itself, so that its own error is seen


class Database:
    """A migrated database on a server of its own, which can be away."""

    def __init__(self, server: EmbeddedServer, url: str) -> None:
        self.url = url
        self._server = server

    @asynccontextmanager
    async def standing_still(self) -> AsyncIterator[None]:
        """It neither answers nor refuses, and does afterwards what it was asked before."""
        with standing_still(self._server.pid):
            yield

    @asynccontextmanager
    async def gone(self) -> AsyncIterator[None]:
        """It has crashed, and refuses connections until it was started again."""
        await self._server.stop("immediate")
        try:
            yield
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
                await self._server.start()


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    folder, port = make_folder(), free_port()
    server = EmbeddedServer(folder, settings=TEST_SETTINGS | {"listen_addresses": "127.0.0.1", "port": str(port)})
    await server.start()
    try:
        database = Database(server, f"postgresql://lobu@127.0.0.1:{port}/postgres")
        await migrate(database.url)
        yield database
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_SECONDS):
            await server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def hosts(number: int, config: str, database_url: str) -> AsyncIterator[list[LobuRun]]:
    """That many, ready. Each keeps its port when it is started again."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                lobu_run(
                    config=config,
                    database_url=database_url,
                    environment=SEVERAL,
                    arguments=("--port", str(free_port())),
                )
            )
            for _ in range(number)
        ]


async def lobu(run: LobuRun, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the folder of a run."""
    return await trio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, *LOBU, *words],
            cwd=run.folder,
            env=run.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    )


@contextmanager
def standing_still(postmaster: int) -> Iterator[None]:
    """The whole database server stands still: it neither answers nor refuses."""
    found = [postmaster]
    os.kill(postmaster, signal.SIGSTOP)
    try:
        process = psutil.Process(postmaster)
        while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)
        # It alone makes the others, so that from now on there are only fewer.
        for child in process.children(recursive=True):
            with suppress(ProcessLookupError):  # its connection has ended meanwhile
                os.kill(child.pid, signal.SIGSTOP)
                found.append(child.pid)
        yield
    finally:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

"""Everything here drives real `lobu run` processes over HTTP. A run on the shared database starts in a second."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.system.lobu_process import LobuRun, lobu_run
from tests.system.sse_client import Client

Start = Callable[..., Any]


@pytest.fixture
async def start_run(database_url: str) -> AsyncIterator[Start]:
    """`await start_run(config=…)`: a run on a fresh external database; `database_url=None`: on its own embedded one."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> LobuRun:
            return await stack.enter_async_context(lobu_run(**{"database_url": database_url, **options}))

        yield start


@contextmanager
def shared_run(config: str, database_url: str) -> Iterator[LobuRun]:
    """For a fixture of module scope: one run that many tests talk to."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-system-"))
    run = LobuRun(folder, config=config, database_url=database_url)
    try:
        trio.run(run.start)
        yield run
    finally:
        trio.run(run.kill_all)
        shutil.rmtree(folder, ignore_errors=True)


def client_of(run: LobuRun, *, keep: bool = False) -> Client:
    return Client(run.url, run.admin_key, keep=keep)

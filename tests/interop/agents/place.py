"""A `lobu run` for scenarios with agents: started for a module of tests, on a database of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trio

from lobu_actors.store.embedded import EmbeddedServer
from tests.conftest import admin, url_of
from tests.system.audit import broken_promises
from tests.system.lobu_process import LobuRun


@contextmanager
def running(
    server: EmbeddedServer, template: str, name: str, config: str, environment: Mapping[str, str] | None = None
) -> Iterator[LobuRun]:
    """Ready; its promises are looked at in the end. `name`: of the database."""
    folder = Path(tempfile.mkdtemp(prefix="lobu-system-"))
    admin(server.url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    run = LobuRun(folder, config=config, database_url=url_of(server, name), environment=environment)
    try:
        trio.run(run.start)
        yield run
        assert broken_promises(run.database_url) == []
    finally:
        trio.run(run.kill_all)
        shutil.rmtree(folder, ignore_errors=True)
        admin(server.url, f"DROP DATABASE {name} WITH (FORCE)")

"""A server that listens on TCP too, for what only shows there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import trio

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from tests.conftest import TEST_SETTINGS, make_folder
from tests.system.lobu_process import free_port


@pytest.fixture(scope="module")
def tcp_url() -> Iterator[str]:
    """Of a migrated database on 127.0.0.1, one for the tests of a module."""
    folder, port = make_folder(), free_port()
    server = EmbeddedServer(folder, settings=TEST_SETTINGS | {"listen_addresses": "127.0.0.1", "port": str(port)})
    trio.run(server.start)
    try:
        url = f"postgresql://lobu@127.0.0.1:{port}/postgres"
        trio.run(migrate, url)
        yield url
    finally:
        trio.run(server.stop, "immediate")
        shutil.rmtree(folder, ignore_errors=True)

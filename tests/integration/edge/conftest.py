"""What the edge's integration tests share: a world with a real server on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from edge.settings import EdgeSettings
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, running


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """No clock of it ends anything within a test, however long this process has to wait for its turn."""
    settings = EdgeSettings(poll_seconds=0.2, first_request_seconds=4.0)
    async with running(await EdgeWorld.make(settings)) as server:
        yield server


@pytest.fixture
async def hasty() -> AsyncIterator[Running]:
    """For what its clocks do."""
    settings = EdgeSettings(ping_seconds=0.2, body_seconds=1.5, keep_alive_seconds=1.5)
    async with running(await EdgeWorld.make(settings)) as server:
        yield server

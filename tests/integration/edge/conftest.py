"""What the edge's integration tests share: a world with a real server on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from edge.settings import EdgeSettings
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, running


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    settings = EdgeSettings(
        ping_seconds=0.2, poll_seconds=0.2, body_seconds=0.5, keep_alive_seconds=0.5, stop_grace_seconds=0.3
    )
    async with running(await EdgeWorld.make(settings)) as server:
        yield server

"""The address where runners come in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from msgspec.structs import replace
from trio_websocket import ConnectionClosed

from edge.settings import EdgeSettings
from edge.tokens import new_api_key
from lobu_actors.contract import worker_link as link
from lobu_actors.contract.states import Role
from lobu_actors.gateway.worker_door import CannotReach, Joining, WorkerPipe
from lobu_actors.store.records import ApiKey
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import running
from tests.fakes.socket_client import opened


class NoHosts:
    async def hosts(self) -> Sequence[str]:
        return ()

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        raise CannotReach(host_id)


async def test_who_is_let_in_and_says_nothing_in_time_may_come_again() -> None:
    """Its machine may have stood still, or its network: a runner takes a refusal for the end."""
    world = await EdgeWorld.make(EdgeSettings(worker_join_seconds=0.1))
    world.application.services = replace(world.services, worker_door=NoHosts())
    key, key_hash = new_api_key()
    await world.store.put_api_key(ApiKey(key_hash, "acme", "gpu", Role.WORKER, "test"))
    async with running(world) as server, opened(server, link.PATH, key=key) as socket:
        with trio.fail_after(10), pytest.raises(ConnectionClosed) as closed:
            await socket.connection.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == link.NOBODY_THERE

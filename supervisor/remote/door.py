"""The door of an edge in a supervisor's own process: to its own remote workers, and to other hosts over links."""

from __future__ import annotations

from collections.abc import Callable

import trio

from lobu_actors.gateway.link.worker_pipe import LinkDoor
from lobu_actors.gateway.worker_door import Joining, WorkerPipe
from lobu_actors.runtime.child_spec import ChildContext
from supervisor.remote.pool import RemoteWorkers


class HostDoor:
    """Implements `WorkerDoor`; a supervised child."""

    def __init__(self, host_id: Callable[[], str], here: RemoteWorkers, others: LinkDoor) -> None:
        self._host_id = host_id
        self._here = here
        self._others = others

    async def run(self, context: ChildContext) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._others.run)
            context.started()
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def hosts(self) -> list[str]:
        return [self._host_id(), *await self._others.hosts()]

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        if host_id == self._host_id():
            return self._here.open(joining)
        return await self._others.open(host_id, joining)

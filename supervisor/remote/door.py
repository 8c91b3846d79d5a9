"""The door to this process's own remote workers, for an edge in the same process."""

from __future__ import annotations

from collections.abc import Callable

from lobu_actors.gateway.worker_door import CannotReach, Joining, WorkerPipe
from supervisor.remote.pool import RemoteWorkers


class LocalDoor:
    """Implements `WorkerDoor`."""

    def __init__(self, host_id: Callable[[], str], workers: RemoteWorkers) -> None:
        self._host_id = host_id
        self._workers = workers

    async def hosts(self) -> list[str]:
        return [self._host_id()]

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        if host_id != self._host_id():
            raise CannotReach("that host is not here")
        return self._workers.open(joining)

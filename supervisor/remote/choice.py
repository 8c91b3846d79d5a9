"""The conversations' port `Workers`: a process of this host, or a place on another machine, as its type says."""

from __future__ import annotations

from collections.abc import Mapping

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import Adopted, Deliver, Worker, WorkerRequest
from lobu_actors.store.records import RunRecord
from supervisor.remote.pool import RemoteWorkers
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerType


class AllWorkers:
    """Implements `Workers`."""

    def __init__(self, types: Mapping[str, WorkerType], here: WorkerProcesses, elsewhere: RemoteWorkers) -> None:
        self._types = types
        self._here = here
        self._elsewhere = elsewhere

    def start(self, request: WorkerRequest, deliver: Deliver) -> Worker:
        kind = self._types.get(request.worker)
        if kind is None or not kind.remote:
            return self._here.start(request, deliver)
        self._here.end_left_behind(request.ref)  # of a type that was local until a moment ago
        return self._elsewhere.start(request, deliver)

    def adopt(self, ref: ConversationRef, live_run: RunRecord | None, deliver: Deliver) -> Adopted | None:
        """A remote worker is lost with its supervisor; see ADR 29."""
        return self._here.adopt(ref, live_run, deliver)

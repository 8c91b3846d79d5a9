"""Looks at the workspaces of living workers again and again, and ends a worker whose workspace is over its quota.

That includes a worker that waits for its next turn. What it left is removed before the next one starts, which looks
once more: so nothing need be remembered here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext
from supervisor.workers.info import WorkerInfo

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 0.5
MAX_SHARE = 0.1  # of one CPU; many files in many workspaces make the rounds rarer


class WorkspaceWatch:
    """A supervised child. `excess` says why a workspace is over its quota, `end` ends a worker for that reason."""

    def __init__(
        self,
        living: Callable[[], Sequence[WorkerInfo]],
        excess: Callable[[ConversationRef], Awaitable[str | None]],
        end: Callable[[str, str], None],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._living = living
        self._excess = excess
        self._end = end
        self._interval_seconds = interval_seconds

    async def run(self, context: ChildContext) -> None:
        context.started()
        while not context.stopping.is_set():
            begun = trio.current_time()
            for worker in self._living():
                await self._look(worker)
            took = trio.current_time() - begun
            with trio.move_on_after(max(self._interval_seconds, took * (1 / MAX_SHARE - 1))):
                await context.stopping.wait()

    async def _look(self, worker: WorkerInfo) -> None:
        try:
            reason = await self._excess(worker.ref)
        except OSError as error:  # its owner may change it at any moment
            log.warning("workspace cannot be measured", worker_id=worker.worker_id, error=str(error))
            return
        if reason is not None:
            log.warning("workspace over its quota", worker_id=worker.worker_id, reason=reason)
            self._end(worker.worker_id, reason)

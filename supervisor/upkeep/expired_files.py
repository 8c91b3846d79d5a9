"""Deletes files that no turn has and whose time has come: of uploads that were cut off with their edge, of runs whose
host was lost, of conversations that were closed. In small batches, since one file may be many pieces.
"""

from __future__ import annotations

import structlog
import trio

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import FileStore

log = structlog.get_logger(__name__)

BATCH = 5
INTERVAL_SECONDS = 30.0


class ExpiredFiles:
    """A supervised child. Any number of hosts may do this at once: what one has taken, the others skip."""

    def __init__(self, store: FileStore, *, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._store = store
        self._interval_seconds = interval_seconds

    async def run(self, context: ChildContext) -> None:
        context.started()
        while not context.stopping.is_set():
            if not await self._delete_some():
                with trio.move_on_after(self._interval_seconds):
                    await context.stopping.wait()

    async def _delete_some(self) -> bool:
        """Whether there may be more."""
        try:
            deleted = await self._store.delete_expired_files(limit=BATCH)
        except StoreUnavailable as error:
            log.warning("expired files stay, the store is away", error=str(error))
            return False
        if deleted:
            log.info("expired files deleted", files=deleted)
        return deleted == BATCH

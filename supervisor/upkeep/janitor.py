"""Deletes what is older than it has to be kept, and keeps snapshots short, in walk after walk over all conversations;
behind each walk, the rows of hosts that are over for long.

Compaction is done here and not with the terminal event: the whole file (up to the session limit) would have to go over
the wire inside the statement that a client waits for, while here the server joins the pieces by itself. The price is a
soft bound: between two walks a snapshot may grow past it.

One step at a time, each one statement or two, so whatever stops it leaves nothing half done. Several hosts may do this
at once; a conversation that somebody writes to is skipped. Knows nothing of actors: what it deletes none of them reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreError, StoreUnavailable
from lobu_actors.store.protocol import RetentionStore
from lobu_actors.store.records import Trimmable

log = structlog.get_logger(__name__)

T = TypeVar("T")

PAGE = 500  # conversations looked at in one statement
BATCH = 200  # events deleted in one statement
HOSTS = 1000  # forgotten in one statement, or leases of theirs given up
BREATH_SECONDS = 0.01  # between pages: a walk must not take a whole core of the database's


class Janitor:
    """A supervised child."""

    def __init__(
        self,
        store: RetentionStore,
        *,
        retention_seconds: float,
        max_segments: int,
        interval_seconds: float,
        host_retention_seconds: float,
        page: int = PAGE,
        batch: int = BATCH,
    ) -> None:
        self._store = store
        self._retention_seconds = retention_seconds
        self._max_segments = max_segments
        self._interval_seconds = interval_seconds
        self._host_retention_seconds = host_retention_seconds
        self._page = page
        self._batch = batch
        self._after: ConversationRef | None = None  # a walk that broke off goes on from here

    async def run(self, context: ChildContext) -> None:
        context.started()
        while not context.stopping.is_set():
            try:
                await self.walk(context.stopping)
                await self.forget_hosts(context.stopping)
            except StoreUnavailable as error:
                log.warning("retention has to wait, the store is away", error=str(error))
            except StoreError as error:
                log.error("retention failed", error=str(error))
            with trio.move_on_after(self._interval_seconds):
                await context.stopping.wait()

    async def walk(self, stopping: trio.Event) -> Counter[str]:
        """Once over all conversations, or until `stopping`; rows deleted, by table. Raises StoreUnavailable."""
        done: Counter[str] = Counter()
        try:
            while not stopping.is_set():
                page = await self._store.find_trimmable(
                    self._after,
                    older_than_seconds=self._retention_seconds,
                    max_segments=self._max_segments,
                    limit=self._page,
                )
                for found in page:
                    await self._clean(found, done, stopping)
                    if stopping.is_set():
                        return done
                    self._after = found.ref
                if len(page) < self._page:
                    self._after = None
                    return done
                with trio.move_on_after(BREATH_SECONDS):
                    await stopping.wait()
            return done
        finally:
            if done.total():
                log.info("retention", **done)

    async def forget_hosts(self, stopping: trio.Event) -> int:
        """Delete the rows of hosts that are over for long enough; gives how many. Raises StoreUnavailable."""
        forgotten = 0
        while not stopping.is_set():
            gone = await self._store.delete_dead_hosts(older_than_seconds=self._host_retention_seconds, limit=HOSTS)
            forgotten += len(gone)
            if len(gone) < HOSTS:
                break
        if forgotten:
            log.info("hosts forgotten", hosts=forgotten)
        return forgotten

    async def _clean(self, found: Trimmable, done: Counter[str], stopping: trio.Event) -> None:
        if found.old:
            await self._trim(found.ref, done, stopping)
        if found.segments > self._max_segments:
            compacted = await _unless_refused(found.ref, partial(self._store.compact, found.ref))
            if compacted is not None and compacted.corrupt:
                log.error("snapshot does not match its hash", conversation=found.ref.conversation_id)
            elif compacted is not None and compacted.replaced:
                done["compacted"] += compacted.replaced

    async def _trim(self, ref: ConversationRef, done: Counter[str], stopping: trio.Event) -> None:
        limit = self._batch
        while not stopping.is_set():
            try:
                step = partial(self._store.trim, ref, older_than_seconds=self._retention_seconds, limit=limit)
                trimmed = await _unless_refused(ref, step)
            except StoreUnavailable:
                # Maybe that was too much for one call.
                if limit == 1:
                    raise
                limit = max(limit // 8, 1)
                continue
            if trimmed is None:
                return
            for table in ("turns", "events", "segments", "runs", "questions", "files"):
                if number := getattr(trimmed, table):
                    done[table] += number
            if not trimmed.more:
                return


async def _unless_refused(ref: ConversationRef, ask: Callable[[], Awaitable[T]]) -> T | None:
    """One conversation whose rows do not fit must not keep all behind it from being cleaned."""
    try:
        return await ask()
    except StoreUnavailable:
        raise
    except StoreError as error:
        log.error("retention failed", conversation=ref.conversation_id, error=str(error))
        return None

"""Stops this host's workers before another host may take their conversations over, and lets them go on when it did not.

A host trusts its lease until its own monotonic clock says otherwise, which is before the database lets anybody else in.
The spawner is told until when, and freezes the workers by itself when it hears nothing newer: so also those of a
supervisor that is paused, hangs or is dead. A spawner may stand still, too, so they are stopped from here as well; only
the spawner lets them go on, and it ends first what it was told to end before. Here the run's clocks are stopped
meanwhile, and when the database answers again, the workers of conversations that were taken over are ended first, and
then the rest is thawed.

A host that is alone freezes nothing: nobody can take anything over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TypeVar

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import Store
from supervisor.membership import Membership
from supervisor.spawner.link import SpawnerLink
from supervisor.workers.service import WorkerProcesses

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

AGAIN_SECONDS = 0.2  # between two questions to a store that is away again


class Freezer:
    """A supervised child. `active` are the conversations with an actor here, `give_up` ends one of them."""

    def __init__(
        self,
        membership: Membership,
        store: Store,
        link: SpawnerLink,
        clock: RunningClock,
        active: Callable[[], Collection[ConversationRef]],
        give_up: Callable[[ConversationRef], object],
        workers: WorkerProcesses,
        *,
        alone: bool,
    ) -> None:
        self._membership = membership
        self._store = store
        self._link = link
        self._clock = clock
        self._active = active
        self._give_up = give_up
        self._workers = workers
        self._alone = alone
        self._frozen = False
        self._news = trio.Event()

    async def run(self, context: ChildContext) -> None:
        # A start as a new host: of what was frozen before, only a predecessor's workers are there still.
        await self._end_left_behind()
        self._thaw()
        context.started()
        async with trio.open_nursery() as nursery:
            if not self._alone:
                self._link.on_frozen = self._frozen_there
                nursery.start_soon(self._hear_renewals)
                nursery.start_soon(self._watch)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            self._news = trio.Event()
            with trio.move_on_at(self._clock.until):
                await self._news.wait()
            if not self._frozen and not self._clock.stands:
                self._clock.go_on(self._membership.trusted_until)
                self._link.trust(self._monotonic())
                continue
            self._link.freeze()
            telemetry.FREEZES.inc()
            log.warning("workers frozen", reason="the host lease could not be renewed in time")
            await self._membership.trusted_again()
            await self._end_what_was_taken()
            stood = self._thaw()
            log.info("workers go on", seconds=round(stood, 3))

    async def _hear_renewals(self) -> None:
        while True:
            await self._membership.renewed()
            self._news.set()

    def _frozen_there(self) -> None:
        """The spawner has frozen them: it heard of a later time too late."""
        self._frozen = True
        self._news.set()

    async def _end_what_was_taken(self) -> None:
        """Ask until it is known: nothing may run on that somebody else runs too."""

        async def taken() -> set[ConversationRef]:
            active = list(self._active())
            return set(active) - await self._store.find_held(self._membership.host_id, active)

        for ref in await _until_known(taken):
            log.warning("taken over by another host", conversation=ref.conversation_id)
            self._give_up(ref)

    async def _end_left_behind(self) -> None:
        """Workers of an earlier supervisor whose conversations another host has by now."""
        for ref in () if self._alone else self._workers.left_behind():
            owner = await _until_known(partial(self._store.find_owner, ref))
            if owner not in (None, self._membership.host_id):
                log.warning("taken over by another host", conversation=ref.conversation_id)
                self._workers.end_left_behind(ref)

    def _thaw(self) -> float:
        self._frozen = False
        self._link.thaw(None if self._alone else self._monotonic())
        return self._clock.go_on(math.inf if self._alone else self._membership.trusted_until)

    def _monotonic(self) -> float:
        """Until when this host is trusted, by the clock that the spawner has too."""
        return time.monotonic() + max(0.0, self._membership.trusted_until - trio.current_time())


async def _until_known(ask: Callable[[], Awaitable[_T]]) -> _T:
    """The store's answer, however long it is away: the workers stand still until then."""
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            log.warning("not thawed yet, the store is away", error=str(error))
            await trio.sleep(AGAIN_SECONDS)

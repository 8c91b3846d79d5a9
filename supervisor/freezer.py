"""Stops this host's workers before another host may take their conversations over, and lets them go on when it did not.

A host trusts its lease until its own monotonic clock says otherwise, which is before the database lets anybody else in.
The spawner is told until when, and freezes the workers by itself when it hears nothing newer: so also those of a
supervisor that is paused, hangs or is dead. Here the run's clocks are stopped meanwhile, and when the database answers
again, the workers of conversations that were taken over are ended first, and then the rest is thawed.

A host that is alone freezes nothing: nobody can take anything over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.protocol import HostStore
from supervisor.membership import Membership
from supervisor.spawner.link import SpawnerLink

log = structlog.get_logger(__name__)

FOR_EVER_SECONDS = 100 * 365 * 86_400.0
AGAIN_SECONDS = 0.2  # between two questions to a store that is away again


class Freezer:
    """A supervised child. `active` are the conversations with an actor here, `give_up` ends one of them."""

    def __init__(
        self,
        membership: Membership,
        store: HostStore,
        link: SpawnerLink,
        clock: RunningClock,
        active: Callable[[], Collection[ConversationRef]],
        give_up: Callable[[ConversationRef], object],
        *,
        alone: bool,
    ) -> None:
        self._membership = membership
        self._store = store
        self._link = link
        self._clock = clock
        self._active = active
        self._give_up = give_up
        self._alone = alone

    async def run(self, context: ChildContext) -> None:
        # A start as a new host: whatever was frozen before is ended by now.
        self._thaw()
        context.started()
        async with trio.open_nursery() as nursery:
            if not self._alone:
                nursery.start_soon(self._watch)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            await self._until_mistrusted()
            self._clock.stop()
            telemetry.FREEZES.inc()
            log.warning("workers frozen", reason="the host lease could not be renewed in time")
            await self._membership.trusted_again()
            await self._end_what_was_taken()
            stood = self._thaw()
            log.info("workers go on", seconds=round(stood, 3))

    async def _until_mistrusted(self) -> None:
        while (left := self._membership.trusted_until - trio.current_time()) > 0:
            self._link.trust(time.monotonic() + left)
            with trio.move_on_after(left):
                await self._membership.renewed()

    async def _end_what_was_taken(self) -> None:
        """Ask until it is known: nothing may run on that somebody else runs too."""
        while True:
            active = list(self._active())
            try:
                kept = await self._store.find_held(self._membership.host_id, active)
            except StoreUnavailable as error:
                log.warning("not thawed yet, the store is away", error=str(error))
                await trio.sleep(AGAIN_SECONDS)
                continue
            for ref in set(active) - kept:
                log.warning("taken over by another host", conversation=ref.conversation_id)
                self._give_up(ref)
            return

    def _thaw(self) -> float:
        left = FOR_EVER_SECONDS if self._alone else self._membership.trusted_until - trio.current_time()
        self._link.thaw(time.monotonic() + max(0.0, left))
        return self._clock.start()

"""One activation in the whole cluster: a supervised child on every host, whose body runs on the one that has the lease.

The model: a lease row of its own kind, held as long as the holder's host row lives. A host that is alive cannot lose it
to another; so the body may run while this process trusts its host row, and is stopped STOP_SECONDS before that trust
ends, which itself is before anybody else may take over. A process that stands still (SIGSTOP, a virtual machine that
is moved) wakes to a deadline that has passed: its body gets no further than its next checkpoint. That is no proof
against what it had already begun, so whatever the body writes is fenced by the lease or keyed so that twice is once,
and what it asks of others ends by itself before the trust does (`Hold.seconds_left`).

Failure: a body that fails gives the lease up, so that another host may do better, and is tried again after a backoff.
That is done here and not left to the supervision tree: there one restart too many ends the host with all of its
conversations, and a chat platform that answers in an unforeseen way must not do that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.states import HostState
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.intensity import Backoff
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.singleton_protocol import SingletonStore
from lobu_actors.store.singleton_records import SingletonLease, SingletonName

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
LOOK_SECONDS = 0.2  # how soon a renewed trust, or a drain, is noticed
CHECK_SECONDS = 1.0  # between two looks at the lease row
STOP_SECONDS = 0.5  # before the trust ends
RELEASE_SECONDS = 2.0
BACKOFF = Backoff(initial_seconds=1.0, factor=2.0, max_seconds=60.0)
HEALTHY_SECONDS = 60.0  # a body that ran for so long begins its backoff anew


class HostTrust(Protocol):
    """What a singleton must know of its host; see `Membership`."""

    host_id: str
    state: HostState
    trusted_until: float  # trio clock


class SingletonLost(Exception):
    """A fenced write found that the lease is another's. The body must end; it is no failure of it."""


class Hold(msgspec.Struct, frozen=True):
    """What a body gets: its lease, and for how long it is trusted from now."""

    lease: SingletonLease
    ends_at: Callable[[], float]  # trio clock; moves on with every renewal

    def seconds_left(self) -> float:
        return self.ends_at() - trio.current_time()

    def check(self, landed: bool) -> None:
        """For the result of a fenced write. Raises SingletonLost."""
        if not landed:
            telemetry.FENCED_WRITES.labels(self.lease.name.kind).inc()
            raise SingletonLost(f"{self.lease.name.kind} {self.lease.name.key} is another host's now")


Body = Callable[[Hold], Awaitable[None]]


class Singleton:
    """A supervised child. `body` runs for ever, until it is cancelled; one that returns is started again."""

    def __init__(self, name: SingletonName, store: SingletonStore, trust: HostTrust, body: Body) -> None:
        self.name = name
        self._store = store
        self._trust = trust
        self._body = body
        self._held = telemetry.SINGLETONS_HELD.labels(name.kind, name.key)
        self._log = log.bind(kind=name.kind, key=name.key)

    async def run(self, context: ChildContext) -> None:
        context.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop)
            await context.stopping.wait()
            nursery.cancel_scope.cancel()

    async def _loop(self) -> None:
        failures = 0
        while True:
            lease = await self._acquire()
            if lease is not None:
                began = trio.current_time()
                failed = await self._hold(lease)
                if trio.current_time() - began > HEALTHY_SECONDS:
                    failures = 0
                failures = failures + 1 if failed else 0
            await trio.sleep(BACKOFF.delay(failures) if failures else RETRY_SECONDS)

    def _ends_at(self) -> float:
        return self._trust.trusted_until - STOP_SECONDS

    async def _acquire(self) -> SingletonLease | None:
        if self._trust.state is not HostState.ACTIVE or self._ends_at() <= trio.current_time():
            return None
        try:
            return await self._store.acquire_singleton(self.name, self._trust.host_id)
        except StoreUnavailable:
            return None  # membership says so already

    async def _hold(self, lease: SingletonLease) -> bool:
        """Run the body while the lease is held and trusted. True: it failed."""
        failed = False
        self._log.info("singleton taken", epoch=lease.epoch)
        self._held.set(1)
        try:
            # Not longer than what is trusted now: a trust that ended and came back may have let others in between.
            with trio.CancelScope(deadline=self._ends_at()) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, lease, scope)
                    await self._body(Hold(lease, lambda: scope.deadline))
                    nursery.cancel_scope.cancel()
        except* SingletonLost:
            self._log.warning("singleton lost, a write was refused", epoch=lease.epoch)
        except* Exception as errors:
            failed = True
            self._log.error("singleton failed", epoch=lease.epoch, exc_info=errors)
        finally:
            self._held.set(0)
            await self._release(lease)
        self._log.info("singleton given up", epoch=lease.epoch)
        return failed

    async def _watch(self, lease: SingletonLease, scope: trio.CancelScope) -> None:
        checked_at = trio.current_time()
        while self._trust.host_id == lease.host_id and self._trust.state is HostState.ACTIVE:
            # A scope whose deadline has passed is cancelled for good, so this never brings a trust back.
            scope.deadline = self._ends_at()
            if trio.current_time() - checked_at >= CHECK_SECONDS:
                checked_at = trio.current_time()
                if not await self._is_held(lease):
                    break
            await trio.sleep(LOOK_SECONDS)
        scope.cancel()

    async def _is_held(self, lease: SingletonLease) -> bool:
        try:
            return await self._store.is_singleton_held(lease)
        except StoreUnavailable:
            return True  # nobody can take it from a store that is away, and the trust runs out by itself

    async def _release(self, lease: SingletonLease) -> None:
        with trio.move_on_after(RELEASE_SECONDS, shield=True):
            try:
                await self._store.release_singleton(lease)
            except StoreUnavailable:
                self._log.info("singleton not given up; its lease ends with this host's")

"""Supervisors: start children in order, watch them, restart them, stop them in reverse.

Owns the supervision loop, with the semantics of OTP's `supervisor.erl`. What one child's task does is in `child_slot`,
who is restarted with whom in `strategy`, how often in `intensity`. Knows nothing of what the children do.

The model: one manager, the task that runs the supervisor, does one thing at a time, as in OTP. A child that ends while
another is being started, or waits for its backoff, is dealt with afterwards. Children only report; the manager alone
starts, stops and tells `on_event`. An ordered stop interrupts a wait for a start or a backoff.

Failure: a child's error, an ExceptionGroup too, is kept whole and is the cause of what the supervisor raises. What is
no Exception (KeyboardInterrupt, a Cancelled from outside) is not a child's failure: it ends the supervisor, and
everything below it is cancelled at once, so that the order of the stop is only best effort. Who wants the order calls
`stop()` first.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import trio

from lobu_actors.runtime.child_slot import ChildEvent, ChildSlot, EventKind
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.errors import (
    ActorStopped,
    ChildFault,
    ChildNeverStarted,
    ChildStartFailed,
    InvalidChildSpec,
    RestartIntensityExceeded,
    StartTimeout,
)
from lobu_actors.runtime.intensity import Backoff, Intensity, record
from lobu_actors.runtime.strategy import Strategy, affected, wants_restart
from lobu_actors.runtime.tree import NodeState, TreeNode

__all__ = ["ChildEvent", "EventKind", "Strategy", "Supervisor"]

DEFAULT_INTENSITY = Intensity(max_restarts=3, within_seconds=5.0)
DEFAULT_BACKOFF = Backoff(initial_seconds=0.1, factor=2.0, max_seconds=1.0)


class Supervisor:
    """A fixed list of children under one restart strategy.

    `on_event` is called synchronously by the manager; an exception from it ends the supervisor. The same supervisor may
    run again after it ended, but not twice at a time. Raises InvalidChildSpec for ids that repeat and for a backoff
    that slows restarts so much that the intensity could never be exceeded, which would be an unbounded retry.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec],
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = DEFAULT_INTENSITY,
        backoff: Backoff = DEFAULT_BACKOFF,
        on_event: Callable[[ChildEvent], None] | None = None,
    ) -> None:
        ids = [child.id for child in children]
        repeated = sorted({id for id in ids if ids.count(id) > 1})
        if repeated:
            raise InvalidChildSpec(f"supervisor {name!r} has several children called {', '.join(repeated)}")
        if sum(backoff.delay(n) for n in range(1, intensity.max_restarts + 1)) > intensity.within_seconds:
            raise InvalidChildSpec(
                f"supervisor {name!r} would retry for ever: its backoff delays {intensity.max_restarts} restarts by "
                f"more than the {intensity.within_seconds:g} s of its intensity"
            )
        self.name = name
        self._slots = [ChildSlot(spec, self._notify, self._exited) for spec in children]
        self._strategy = strategy
        self._intensity = intensity
        self._backoff = backoff
        self._on_event = on_event
        self._state = NodeState.STOPPED
        self._context: ChildContext | None = None
        self._stop_requested = False
        self._history: tuple[float, ...] = ()
        self._exits: list[ChildSlot] = []  # ended and not dealt with; at most one entry for each child
        self._changed = trio.Event()

    async def run(self, context: ChildContext) -> None:
        """Run as a child: returns after an ordered stop (`context.stopping`), else raises.

        Calls `context.started(self)` when all children have started. Raises ChildStartFailed or
        RestartIntensityExceeded, with the child's error as their cause, after the other children have been stopped in
        reverse order.
        """
        if self._context is not None:
            raise RuntimeError(f"supervisor {self.name!r} is running already")
        self._context = context
        self._history = ()
        self._exits.clear()
        for slot in self._slots:
            slot.restarts = 0
        fault: ChildFault | None = None
        ended = NodeState.FAILED  # unless it gets to the end
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_for_stop, context.stopping)
                try:
                    fault = await self._manage(nursery, context)
                except BaseException as reason:
                    self._give_errors_back(reason)
                    raise
                nursery.cancel_scope.cancel()
            ended = NodeState.STOPPED if fault is None else NodeState.FAILED
        finally:
            self._state = ended
            self._context = None
        if fault is not None:
            raise fault from fault.error

    async def serve(self, *, task_status: trio.TaskStatus["Supervisor"] = trio.TASK_STATUS_IGNORED) -> None:
        """Run as the top of a program, until `stop()`; with `nursery.start` it returns itself when all have started."""
        context = ChildContext(self.name, lambda: task_status.started(self))
        if self._stop_requested:
            context.stopping.set()
        try:
            await self.run(context)
        finally:
            self._stop_requested = False

    def stop(self) -> None:
        """Begin the ordered stop and return at once. Before `serve()`, that will stop as soon as it begins."""
        self._stop_requested = True
        if self._context is not None:
            self._context.stopping.set()

    def value(self, child_id: str) -> object:
        """What a running child passed to `started()`. Raises ActorStopped if it does not run, KeyError if unknown."""
        for slot in self._slots:
            if slot.spec.id == child_id:
                if slot.state is not NodeState.RUNNING:
                    raise ActorStopped(f"child {child_id!r} is {slot.state}")
                return slot.context.value
        raise KeyError(child_id)

    def snapshot(self) -> TreeNode:
        """The tree from here downwards, now."""
        return TreeNode(self.name, "supervisor", self._state, 0, tuple(slot.snapshot() for slot in self._slots))

    def as_child(self, restart: Restart = Restart.PERMANENT) -> ChildSpec:
        """A spec for running it below another supervisor, with time enough to start and stop all its children."""
        specs = [slot.spec for slot in self._slots]
        return ChildSpec(
            id=self.name,
            run=self.run,
            restart=restart,
            shutdown_seconds=1.0 + sum(spec.shutdown_seconds for spec in specs),
            start_timeout_seconds=1.0 + sum(spec.start_timeout_seconds for spec in specs),
            subtree=self.snapshot,
        )

    async def _manage(self, nursery: trio.Nursery, context: ChildContext) -> ChildFault | None:
        self._state = NodeState.STARTING
        fault: ChildFault | None = None
        failed = await self._start(self._slots, nursery)
        if failed is not None:
            slot, error = failed
            fault = ChildStartFailed(slot.spec.id, error)
        elif not context.stopping.is_set():
            self._state = NodeState.RUNNING
            context.started(self)
            fault = await self._supervise(nursery, context)
        self._state = NodeState.STOPPING
        await self._stop(self._slots)
        return fault

    async def _supervise(self, nursery: trio.Nursery, context: ChildContext) -> ChildFault | None:
        """Restart what ends, until an ordered stop (None) or one restart too many."""
        while True:
            await self._wait(lambda: bool(self._exits), math.inf)
            if context.stopping.is_set():
                return None
            slot = self._exits[0]
            self._acknowledge(slot)
            if wants_restart(slot.spec.restart, slot.error):
                fault = await self._restart(slot, slot.error, nursery, context)
                if fault is not None:
                    return fault

    async def _restart(
        self, slot: ChildSlot, error: Exception | None, nursery: trio.Nursery, context: ChildContext
    ) -> ChildFault | None:
        while True:
            self._history, exceeded = record(self._history, trio.current_time(), self._intensity)
            if exceeded:
                slot.state = NodeState.FAILED
                self._emit(slot, EventKind.GAVE_UP, error)
                return RestartIntensityExceeded(slot.spec.id, error)
            group = [self._slots[i] for i in affected(self._strategy, self._slots.index(slot), len(self._slots))]
            await self._stop(group)
            slot.state = NodeState.BACKOFF
            self._emit(slot, EventKind.RESTARTING, error)
            await self._wait(lambda: False, self._backoff.delay(len(self._history)))
            if context.stopping.is_set():
                return None
            again = [member for member in group if member.spec.restart is not Restart.TEMPORARY]
            for member in again:
                member.restarts += 1
            failed = await self._start(again, nursery)
            if failed is None:
                return None
            # A failed restart counts as the next one. The rest of the group has not been started, but belongs to the
            # failed child's group too, whatever the strategy.
            slot, error = failed

    async def _start(self, slots: Iterable[ChildSlot], nursery: trio.Nursery) -> tuple[ChildSlot, Exception] | None:
        """Start in order, each when the one before is usable, until one fails (returned) or a stop is ordered."""
        for slot in slots:
            if self._is_stopping():
                return None
            slot.launch(nursery)
            await self._wait(slot.has_started_or_ended, slot.spec.start_timeout_seconds)
            if slot.context.is_started:
                self._emit(slot, EventKind.STARTED, None)  # if it has ended already, that is dealt with later
            elif slot.is_alive and self._is_stopping():
                return None
            else:
                return slot, await self._start_error(slot)
        return None

    async def _start_error(self, slot: ChildSlot) -> Exception:
        error: Exception
        if slot.is_alive:
            error = StartTimeout(slot.spec.id, slot.spec.start_timeout_seconds)
            await slot.kill()
            error.__cause__ = slot.error
        else:
            error = slot.error or ChildNeverStarted(slot.spec.id)
        slot.state = NodeState.FAILED
        self._acknowledge(slot, error)
        return error

    async def _stop(self, slots: Sequence[ChildSlot]) -> None:
        """Stop in reverse order. What a child raises while it stops is only told to `on_event`, as OTP logs it."""
        for slot in reversed(slots):
            await slot.stop()
            if slot in self._exits:
                self._acknowledge(slot)

    def _is_stopping(self) -> bool:
        return self._context is None or self._context.stopping.is_set()

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for the condition, an ordered stop or the time. Children and the stop announce every change."""
        with trio.move_on_after(seconds):
            while not condition() and not self._is_stopping():
                await self._changed.wait()

    async def _watch_for_stop(self, stopping: trio.Event) -> None:
        await stopping.wait()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _exited(self, slot: ChildSlot) -> None:
        self._exits.append(slot)

    def _acknowledge(self, slot: ChildSlot, error: Exception | None = None) -> None:
        self._exits.remove(slot)
        self._emit(slot, EventKind.EXITED, error or slot.error)

    def _emit(self, slot: ChildSlot, kind: EventKind, error: Exception | None) -> None:
        if self._on_event is not None:
            self._on_event(ChildEvent(self.name, slot.spec.id, kind, error, slot.restarts))

    def _give_errors_back(self, reason: BaseException) -> None:
        """The manager is going: errors that it has not dealt with must reach the parent beside `reason`."""
        for slot in self._slots:
            slot.captures_errors = False
        errors = [slot.error for slot in self._exits if slot.error is not None]
        if errors:
            raise BaseExceptionGroup(f"supervisor {self.name!r} was ended from outside", [reason, *errors]) from None

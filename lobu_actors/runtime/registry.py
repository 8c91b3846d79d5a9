"""A keyed registry: actors come to life when somebody writes to them and go when nobody does.

Owns which keys are active, the actors' tasks, passivation, and what happens after a crash. Knows nothing of what the
keys and messages are, nor of other hosts: uniqueness of a key is within this registry.

The model: a key's cell (mailbox and one task) outlives its incarnations. The task runs one incarnation after another,
each completely ended before the next begins, so there are never two of a key. Senders only see the mailbox, which stays
open while an incarnation stops, so a message that comes meanwhile waits for the next one. The cell is removed in the
same step, without an await, in which its mailbox was seen empty; after that a message makes a new cell. That is why
passivation loses nothing.

Failure: a crash ends one incarnation and the message that caused it is gone, so a poisonous one is not repeated.
Waiting messages go to the next incarnation, at once, unless the key crashed too often; then they are dropped (questions
fail with ActorStopped) and the key is quarantined for one window.
"""

import contextvars
import math
from collections.abc import Callable, Hashable, KeysView
from itertools import islice
from typing import Generic, TypeVar

import attrs
import trio

from lobu_actors.runtime.actor import STOP_SECONDS, Actor, live
from lobu_actors.runtime.ask import answer_drops, ask_through, refuse_all
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.crash_log import CrashLog
from lobu_actors.runtime.errors import ActorStopped, MailboxClosed, RegistryFull
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.mailbox import Mailbox, Overflow
from lobu_actors.runtime.tree import NodeState, TreeNode

__all__ = ["Registry"]

_IDLE_LOOKS = 8  # in the time after which an actor is idle

K = TypeVar("K", bound=Hashable)
M = TypeVar("M")


@attrs.define(eq=False)
class _Cell(Generic[K, M]):
    key: K
    mailbox: Mailbox[M]
    state: NodeState = NodeState.STARTING
    restarts: int = 0
    wait: int | None = None  # which one of the actor for a message it was in when it was looked at; None: in none
    wait_since: float = 0.0
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    def set_running(self) -> None:
        self.state = NodeState.RUNNING

    def set_stopping(self) -> None:
        self.state = NodeState.STOPPING

    def nudge_if_idle(self, now: float, idle_seconds: float) -> None:
        wait = self.mailbox.waits if self.mailbox.awaited else None
        if wait is None or wait != self.wait:
            self.wait, self.wait_since = wait, now
        elif now - self.wait_since >= idle_seconds:
            self.mailbox.nudge()


class Registry(Generic[K, M]):
    """Actors by key, one at most for each, all of them children of one nursery.

    An actor is passivated after `idle_seconds` without a message, or up to an eighth more, if its `may_passivate()`
    agrees; else it is asked again after as long. Each has a mailbox of `mailbox_capacity` messages; at most
    `max_actors` are active. `intensity` holds for each key by itself. `on_crash` is told of each crash, synchronously,
    after the incarnation has ended; an exception from it, as everything that is not an Exception, ends the registry.
    `stop_seconds` bounds an actor's `stopped()`.
    """

    def __init__(
        self,
        factory: Callable[[K], Actor[M]],
        *,
        idle_seconds: float,
        mailbox_capacity: int,
        overflow: Overflow = Overflow.REJECT,
        max_actors: int,
        intensity: Intensity,
        on_crash: Callable[[K, BaseException], None] | None = None,
        stop_seconds: float = STOP_SECONDS,
        name: str = "registry",
    ) -> None:
        if not idle_seconds > 0 or not 0 < stop_seconds < math.inf or max_actors < 1 or mailbox_capacity < 1:
            raise ValueError("a registry's times must be positive, stop_seconds finite, and its limits at least 1")
        self.name = name
        self._factory = factory
        self._idle_seconds = idle_seconds
        self._mailbox_capacity = mailbox_capacity
        self._overflow = overflow
        self._max_actors = max_actors
        self._on_crash = on_crash
        self._stop_seconds = stop_seconds
        self._crashes: CrashLog[K] = CrashLog(intensity)
        self._cells: dict[K, _Cell[K, M]] = {}
        self._nursery: trio.Nursery | None = None  # None: no activations
        self._state = NodeState.STOPPED
        self._own_context = contextvars.copy_context()

    async def run(self, context: ChildContext) -> None:
        """Run as a child of a supervisor, until an ordered stop.

        Then nothing is activated any more, waiting messages are dropped (questions fail with ActorStopped at once), and
        each actor finishes the message it is handling and gets its `stopped()`. The child's shutdown time bounds that.
        """
        if self._state is not NodeState.STOPPED:
            raise RuntimeError(f"registry {self.name!r} is running already")
        # An actor must not inherit the context variables (a request's log fields, say) of whoever wrote to it first.
        self._own_context = contextvars.copy_context()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._state = NodeState.RUNNING
                looking = trio.CancelScope()
                nursery.start_soon(self._look_for_idle, looking)
                try:
                    context.started(self)
                    await context.stopping.wait()
                finally:
                    looking.cancel()
                    self._begin_stop()
        finally:
            self._state = NodeState.STOPPED

    def tell(self, key: K, message: M) -> None:
        """Send without waiting; activates the key's actor if it is not active.

        Raises MailboxFull, RegistryFull, or ActorStopped if the registry does not run or the key is in quarantine. Else
        the message is in the mailbox.
        """
        try:
            self._cell_for(key).mailbox.put_nowait(message)
        except MailboxClosed as closed:
            raise self._stopped() from closed

    def tell_if_active(self, key: K, message: M) -> bool:
        """`tell` only if the key has an actor, or will have one again for messages that wait. Raises MailboxFull."""
        cell = self._cells.get(key)
        if cell is None or cell.mailbox.closed:
            return False
        if cell.state is NodeState.STOPPING and not cell.mailbox.depth:
            return False
        cell.mailbox.put_nowait(message)
        return True

    async def put(self, key: K, message: M) -> None:
        """`tell`, but with Overflow.WAIT it waits for room: bound that with a cancel scope.

        If it is cancelled, the message was not accepted.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # before it would activate an actor for nothing
        try:
            await self._cell_for(key).mailbox.put(message)
        except MailboxClosed as closed:
            raise self._stopped() from closed

    async def ask(self, key: K, message: M, timeout_seconds: float) -> object:
        """Send as `tell` does and wait for what the actor's `handle` returns, `timeout_seconds` in all.

        Raises what `tell` raises (with Overflow.WAIT it waits for room instead of MailboxFull), AskTimeout,
        ActorStopped if the message is dropped, or the exception that handling it raised, which crashes the actor too.
        """
        return await ask_through(self._cell_for(key).mailbox, message, timeout_seconds)

    def kill(self, key: K) -> bool:
        """End the key's present incarnation at once, as OTP's exit(Pid, kill): it is cancelled wherever it waits.

        Its waiting messages go to a fresh one. For an actor that is stuck; False when there is none.
        """
        cell = self._cells.get(key)
        if cell is None:
            return False
        cell.scope.cancel()
        return True

    @property
    def active(self) -> int:
        """How many keys have an actor, those that are starting or stopping included."""
        return len(self._cells)

    def __contains__(self, key: object) -> bool:
        return key in self._cells

    def keys(self) -> KeysView[K]:
        """Those that have an actor, the oldest activations first. Changes as they do: copy it before an await."""
        return self._cells.keys()

    def depth(self, key: K) -> int:
        """The number of messages that wait for this key's actor, now."""
        cell = self._cells.get(key)
        return 0 if cell is None else cell.mailbox.depth

    def snapshot(self, max_children: int = 100) -> TreeNode:
        """The registry and its `max_children` oldest activations; a last line says how many more there are."""
        shown = islice(self._cells.values(), max_children)
        nodes = [TreeNode(str(cell.key), "actor", cell.state, cell.restarts) for cell in shown]
        if self.active > len(nodes):
            nodes.append(TreeNode(f"... and {self.active - len(nodes)} more", "actors", NodeState.RUNNING))
        return TreeNode(self.name, "registry", self._state, 0, tuple(nodes))

    def _cell_for(self, key: K) -> _Cell[K, M]:
        cell = self._cells.get(key)
        if cell is not None:
            return cell
        if self._nursery is None:
            raise self._stopped()
        if self._crashes.is_quarantined(key, trio.current_time()):
            raise ActorStopped(f"the actor of {key!r} crashed too often and is in quarantine")
        if len(self._cells) >= self._max_actors:
            raise RegistryFull(f"registry {self.name!r} already runs {self._max_actors} actors")
        cell = _Cell(key, Mailbox[M](self._mailbox_capacity, self._overflow))
        answer_drops(cell.mailbox)
        self._cells[key] = cell
        self._own_context.run(self._nursery.start_soon, self._run_cell, cell)
        return cell

    async def _run_cell(self, cell: _Cell[K, M]) -> None:
        """One incarnation after another, as long as messages wait for them. The cell is removed at the end."""
        try:
            while True:
                await self._run_incarnation(cell)
                if cell.mailbox.closed or not cell.mailbox.depth:
                    return
                cell.restarts += 1
                cell.state = NodeState.STARTING
                await trio.lowlevel.checkpoint()  # a factory that fails must not keep the event loop to itself
        finally:
            del self._cells[cell.key]
            refuse_all(cell.mailbox, f"the actor of {cell.key!r} stopped before it handled the message")

    async def _run_incarnation(self, cell: _Cell[K, M]) -> None:
        cell.scope = trio.CancelScope()
        try:
            with cell.scope:
                await live(
                    self._factory(cell.key),
                    cell.mailbox,
                    stop_seconds=self._stop_seconds,
                    on_started=cell.set_running,
                    on_stopping=cell.set_stopping,
                )
        except Exception as crash:
            if self._crashes.record(cell.key, trio.current_time()):
                refuse_all(cell.mailbox, f"the actor of {cell.key!r} crashed too often")
            if self._on_crash is not None:
                self._on_crash(cell.key, crash)

    def nudge(self, key: K) -> None:
        """Have this actor passivate now if it waits for a message and its `may_passivate()` agrees."""
        cell = self._cells.get(key)
        if cell is not None and cell.mailbox.awaited:
            cell.mailbox.nudge()

    async def _look_for_idle(self, looking: trio.CancelScope) -> None:
        """All actors now and then. A deadline for each wait of each actor would cost more than handling a message."""
        with looking:
            while True:
                await trio.sleep(self._idle_seconds / _IDLE_LOOKS)
                now = trio.current_time()
                for cell in self._cells.values():
                    cell.nudge_if_idle(now, self._idle_seconds)

    def _begin_stop(self) -> None:
        self._nursery = None
        self._state = NodeState.STOPPING
        for cell in self._cells.values():
            refuse_all(cell.mailbox, f"registry {self.name!r} is stopping")

    def _stopped(self) -> ActorStopped:
        return ActorStopped(f"registry {self.name!r} does not run")

"""One child's place in a supervisor: its task now, or what became of it.

Owns launching, stopping and the state of a single child. Knows nothing of siblings, strategies or intensity; it reports
that something changed and the supervisor decides.
"""

import enum
from collections.abc import Callable

import msgspec
import trio
from msgspec.structs import replace

from lobu_actors.runtime.child_spec import ChildContext, ChildSpec
from lobu_actors.runtime.tree import NodeState, TreeNode

__all__ = ["ChildEvent", "ChildSlot", "EventKind"]


class EventKind(enum.StrEnum):
    """What happened to a child."""

    STARTED = "started"
    EXITED = "exited"
    RESTARTING = "restarting"
    GAVE_UP = "gave_up"


class ChildEvent(msgspec.Struct, frozen=True):
    """For logs and metrics. `error` is whole, None for an end without one; `restarts` is how often it was restarted."""

    supervisor: str
    child_id: str
    kind: EventKind
    error: Exception | None
    restarts: int


class ChildSlot:
    """A child spec with at most one running task.

    `state` is moved here, except BACKOFF and the FAILED of a child that is given up, which the supervisor sets.
    """

    def __init__(self, spec: ChildSpec, on_change: Callable[[], None], on_exit: Callable[["ChildSlot"], None]) -> None:
        self.spec = spec
        self.state = NodeState.STOPPED
        self.restarts = 0
        self.error: Exception | None = None
        self.context = ChildContext(spec.id)
        self.is_alive = False
        self.captures_errors = True
        self._on_change = on_change
        self._on_exit = on_exit
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    def launch(self, nursery: trio.Nursery) -> None:
        """Start the task. The slot must not be alive."""
        self.context = ChildContext(self.spec.id, self._started)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.error = None
        self.is_alive = True
        self.captures_errors = True
        self.state = NodeState.STARTING
        nursery.start_soon(self._run, name=f"child {self.spec.id}")

    def has_started_or_ended(self) -> bool:
        """Whether a wait for its start is over."""
        return self.context.is_started or not self.is_alive

    async def stop(self) -> None:
        """Ordered stop: ask, wait for the child's shutdown time, cancel, wait for the end. Nothing if not alive."""
        if not self.is_alive:
            if self.state is NodeState.BACKOFF:
                self.state = NodeState.STOPPED
            return
        self.state = NodeState.STOPPING
        self.context.stopping.set()
        with trio.move_on_after(self.spec.shutdown_seconds):
            await self._ended.wait()
        await self.kill()

    async def kill(self) -> None:
        """Cancel the child and wait for its end, which takes as long as the child shields itself."""
        self._scope.cancel()
        await self._ended.wait()

    def snapshot(self) -> TreeNode:
        """This child as seen by its supervisor, with what runs below it."""
        if self.spec.subtree is None:
            return TreeNode(self.spec.id, "child", self.state, self.restarts)
        return replace(self.spec.subtree(), name=self.spec.id, state=self.state, restarts=self.restarts)

    def _started(self) -> None:
        if self.state is NodeState.STARTING:  # not if it says so only after its stop was ordered
            self.state = NodeState.RUNNING
        self._on_change()

    async def _run(self) -> None:
        try:
            # The scope takes only the Cancelled that it caused. What else is no Exception is not the child's failure
            # and goes on to whoever runs the supervisor.
            with self._scope:
                await self.spec.run(self.context)
        except Exception as error:
            if not self.captures_errors:
                raise
            self.error = error
        finally:
            self.is_alive = False
            self.state = NodeState.STOPPED if self.error is None else NodeState.FAILED
            self._ended.set()
            self._on_exit(self)
            self._on_change()

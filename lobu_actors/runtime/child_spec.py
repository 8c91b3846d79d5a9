"""What a supervisor knows about a child before it runs, and what the child is given when it does.

Owns the child spec as validated data (OTP's `child_spec()`), and the two signals between a child and its supervisor:
`started` upwards, `stopping` downwards. Knows nothing of strategies, restarts or how a supervisor waits.
"""

import enum
import math
from collections.abc import Awaitable, Callable

import attrs
import trio

from lobu_actors.runtime.errors import InvalidChildSpec
from lobu_actors.runtime.tree import TreeNode

__all__ = ["ChildContext", "ChildSpec", "Restart"]


class Restart(enum.Enum):
    """When a child that ended is started again, as in OTP."""

    PERMANENT = "permanent"
    """Always."""
    TRANSIENT = "transient"
    """Only if it ended with an error."""
    TEMPORARY = "temporary"
    """Never, also when a sibling's failure stopped it."""


class ChildContext:
    """A running child's line to its supervisor. A child gets a new one for each start.

    `stopping` is set when an ordered stop begins: the child should end by itself within its `shutdown_seconds`, after
    which it is cancelled. With a shutdown time of 0 it is cancelled at once.
    """

    def __init__(self, id: str, on_started: Callable[[], None] | None = None) -> None:
        self.id = id
        self.stopping = trio.Event()
        self.value: object = None
        self.is_started = False
        self._on_started = on_started

    def started(self, value: object = None) -> None:
        """Say that the child is usable, once, before the start timeout. `value` can be read from the supervisor."""
        if self.is_started:
            raise RuntimeError(f"child {self.id!r} called started() twice")
        self.is_started = True
        self.value = value
        if self._on_started is not None:
            self._on_started()


@attrs.frozen
class ChildSpec:
    """How to run one child.

    `run` is called for each start and must call `context.started()` within `start_timeout_seconds`. It ends the child
    by returning or raising. `shutdown_seconds` is how long an ordered stop waits before it cancels; 0 cancels at once
    (OTP's brutal_kill). After that the supervisor waits for the child however long it shields itself, since trio cannot
    abandon a task: a child's shields need deadlines. `subtree` describes what runs below the child, if anything does.

    Raises InvalidChildSpec.
    """

    id: str
    run: Callable[[ChildContext], Awaitable[None]]
    restart: Restart = Restart.PERMANENT
    shutdown_seconds: float = 5.0
    start_timeout_seconds: float = 30.0
    subtree: Callable[[], TreeNode] | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InvalidChildSpec(f"a child's id must be a non-empty string, not {self.id!r}")
        if not callable(self.run):
            raise InvalidChildSpec(f"child {self.id!r} needs an async function to run, not {self.run!r}")
        if not isinstance(self.restart, Restart):
            raise InvalidChildSpec(f"child {self.id!r} needs a Restart, not {self.restart!r}")
        if not 0 <= self.shutdown_seconds < math.inf:
            raise InvalidChildSpec(
                f"child {self.id!r} needs finite shutdown_seconds of 0 or more, not {self.shutdown_seconds!r}"
            )
        if not 0 < self.start_timeout_seconds < math.inf:
            raise InvalidChildSpec(
                f"child {self.id!r} needs finite start_timeout_seconds above 0, not {self.start_timeout_seconds!r}"
            )

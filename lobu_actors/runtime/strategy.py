"""Which children a supervisor restarts when one of them ends.

Owns OTP's restart types and strategies as pure functions. Knows no task, clock or child beyond its position.
"""

import enum

from lobu_actors.runtime.child_spec import Restart

__all__ = ["Strategy", "affected", "wants_restart"]


class Strategy(enum.Enum):
    """Who is restarted together, as in OTP."""

    ONE_FOR_ONE = "one_for_one"
    """Only the child that ended."""
    REST_FOR_ONE = "rest_for_one"
    """The child that ended and those that started after it."""
    ONE_FOR_ALL = "one_for_all"
    """All children."""


def wants_restart(restart: Restart, error: Exception | None) -> bool:
    """Whether a child of this type is started again after it ended by itself, with `error` or, if None, without."""
    if restart is Restart.TRANSIENT:
        return error is not None
    return restart is Restart.PERMANENT


def affected(strategy: Strategy, position: int, count: int) -> range:
    """The positions, in start order, of the children to restart when the one at `position` of `count` ended."""
    if strategy is Strategy.ONE_FOR_ONE:
        return range(position, position + 1)
    if strategy is Strategy.REST_FOR_ONE:
        return range(position, count)
    return range(count)

"""Whoever waits for a statement that takes long, and still moves, may be told that it does. Knows no statement.

`MOVED` is called, in the task that waits, with each piece that was sent or received. It must neither wait nor raise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

MOVED: ContextVar[Callable[[], None] | None] = ContextVar("moved", default=None)

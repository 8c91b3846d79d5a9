"""Asking the store until it answers. An outage pauses a turn; it does not fail it.

Sound because every guarded statement may be asked again by its key: if the first asking was committed and only its
answer was lost, the second gives the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.store.errors import StoreUnavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.02
MAX_DELAY_SECONDS = 0.25


class Patience:
    """How long a write is asked again: `seconds` from its first asking, and not beyond `ends_at` (trio clock) once a
    host that is going away has set that."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ends_at = math.inf

    def deadline(self, asked_at: float) -> float:
        return min(asked_at + self.seconds, self.ends_at)


async def until_known(statement: str, ask: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """`ask()`'s result, asked again while the store is away. Raises StoreUnavailable when patience is over."""
    asked_at = trio.current_time()
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            if trio.current_time() + delay >= patience.deadline(asked_at):
                raise
            if delay == FIRST_DELAY_SECONDS:
                log.warning("store away, asking again", statement=statement, error=str(error))
        telemetry.STORE_RETRIES.labels(statement).inc()
        await trio.sleep(delay)
        delay = min(delay * 2, MAX_DELAY_SECONDS)

"""Asking the store until it answers. An outage pauses a turn; it does not fail it.

Sound because every guarded statement may be asked again by its key: if the first asking was committed and only its
answer was lost, the second gives the same answer.
"""

from __future__ import annotations

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


async def until_known(statement: str, ask: Callable[[], Awaitable[T]], patience_seconds: float) -> T:
    """`ask()`'s result, asked again while the store is away. Raises StoreUnavailable when patience is over."""
    deadline = trio.current_time() + patience_seconds
    delay = FIRST_DELAY_SECONDS
    while True:
        try:
            return await ask()
        except StoreUnavailable as error:
            if trio.current_time() + delay >= deadline:
                raise
            if delay == FIRST_DELAY_SECONDS:
                log.warning("store away, asking again", statement=statement, error=str(error))
        telemetry.STORE_RETRIES.labels(statement).inc()
        await trio.sleep(delay)
        delay = min(delay * 2, MAX_DELAY_SECONDS)

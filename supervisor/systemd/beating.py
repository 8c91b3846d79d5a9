"""The watchdog of a process that has a loop. Must not know what the process does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from supervisor.systemd.notify import Notifier


@asynccontextmanager
async def beating(notifier: Notifier) -> AsyncIterator[trio.Nursery]:
    """Feeds the watchdog from this loop: it starves when the loop is stuck. Tasks in it end with the context."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat, notifier)
        yield nursery
        nursery.cancel_scope.cancel()


async def _beat(notifier: Notifier) -> None:
    while True:
        seconds = notifier.beat()
        if seconds is None:
            return
        await trio.sleep(seconds)

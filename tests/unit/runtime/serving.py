"""A way to run a supervisor for as long as a test needs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from lobu_actors.runtime.supervisor import Supervisor


@asynccontextmanager
async def run_while(supervisor: Supervisor) -> AsyncIterator[Supervisor]:
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.serve)
        try:
            yield supervisor
        finally:
            supervisor.stop()

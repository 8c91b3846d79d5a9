"""What one process serves: messages and event streams at once, every other address as soon as the routes are loaded.

Quart, what it stands on and the routes are a fifth of what a start loads, Hypercorn's protocols a tenth. A client whose
server was killed waits for that start, and what it waits for is answered without them (`edge.http_connection`). So the
socket listens before they are loaded: who asks for another address meanwhile waits until they are.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from edge.services import Services
from edge.settings import EdgeSettings

# How long the thread that loads keeps the loop from running; Python's own 5 ms would be felt in each step of a request.
_SWITCH_SECONDS = 0.0005

Routes = Callable[[Any, Any, Any], Awaitable[None]]


class Application:
    """An ASGI app without a lifespan. `edge.server.serve` runs it, and loads it once the socket listens."""

    def __init__(self, services: Services) -> None:
        self.services = services
        """Of the requests that come from now on."""
        self._routes: Routes | None = None
        self._loaded = trio.Event()

    async def load(self) -> None:
        """Load the routes and answer who waits for them. Raises what is in the way of a module."""
        services = self.services
        seconds = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            self._routes = await trio.to_thread.run_sync(_routes_of, services)
        finally:
            sys.setswitchinterval(seconds)
        if services is not self.services:  # settings were read again meanwhile
            self._routes = _routes_of(self.services)
        self._loaded.set()

    def take_up(self, settings: EdgeSettings) -> None:
        """Serve the requests that come from now on with `settings`; those under way end as they began.

        What is remembered (credentials, rates of callers) begins anew. Connections keep what they were made with.
        """
        old = self.services
        old.streams.settings = settings
        self.services = Services.build(old.store, old.gateway, old.keys, settings, old.streams, old.worker_door)
        if self._loaded.is_set():
            self._routes = _routes_of(self.services)

    async def until_loaded(self) -> None:
        await self._loaded.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._routes is not None
        await self._routes(scope, receive, send)


def _routes_of(services: Services) -> Routes:
    import edge.protocols  # noqa: F401  # what speaks with those who ask for other addresses
    from edge.app import create_app

    return create_app(services)

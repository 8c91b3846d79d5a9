"""The outermost layer around the app: mends odd request targets, lets go of what a request held, ends it properly.

Why here: a handler's response is sent after the handler returned, and may never be sent at all. Only this layer sees
the end of every request, so an open feed or a counted stream can never leak. Knows nothing of routes.

Why the shield: with the last part of a response Hypercorn first tells the app that the request is over, at which
Quart-Trio cancels the very task that is about to close the connection, or to start its idle clock. Neither would
happen, and connections would stay open for good.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import trio

from edge.services import AFTERWARDS, HELD

_LAST_PARTS = frozenset({"http.response.body", "websocket.http.response.body", "websocket.close"})


class Outermost:
    """Wraps an ASGI app. `end_seconds` bounds the sending of a response's last part, and what is done afterwards."""

    def __init__(self, app: Any, end_seconds: float) -> None:
        self._app = app
        self._end_seconds = end_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["path"] = _path(scope["path"])
        with ExitStack() as held:
            scope[HELD] = held
            afterwards: list[Callable[[], Awaitable[None]]] = []
            scope[AFTERWARDS] = afterwards
            try:
                await self._app(scope, receive, partial(self._send, send))
            finally:
                if afterwards:
                    await self._do(afterwards)

    async def _do(self, afterwards: list[Callable[[], Awaitable[None]]]) -> None:
        """What a request wants done once its connection is done with it, also when that was cut or cancelled."""
        with trio.move_on_after(self._end_seconds, shield=True):
            for do in afterwards:
                await do()

    async def _send(self, send: Any, message: Any) -> None:
        if message["type"] not in _LAST_PARTS or message.get("more_body", False):
            await send(message)
            return
        with trio.move_on_after(self._end_seconds, shield=True):
            await send(message)


def _path(path: str) -> str:
    """The path of a request target in absolute form; what is no path becomes one that no route has."""
    if path.startswith("/"):
        return path
    try:
        path = urlsplit(path).path
    except ValueError:
        path = ""
    return path if path.startswith("/") else f"/{path or '?'}"

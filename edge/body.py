"""A request's body that knows when it has wholly arrived, and how to wait for the rest of one that is refused.

Why: closing a connection while its peer still sends resets it, and the peer would see a broken connection in place of
the answer that says why. Bounded in time; what arrives meanwhile is counted against the body's limit and dropped.
"""

from __future__ import annotations

import trio
from quart import request
from quart_trio.wrappers.request import TrioBody, TrioRequest


class EdgeBody(TrioBody):
    """`ended` is set once the client has sent all of it, also when it was too large."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self.ended = trio.Event()
        self._appending = False

    def append(self, data: bytes) -> None:
        # A body that outgrows its limit is marked complete from within; that is not its end.
        self._appending = True
        super().append(data)
        self._appending = False

    def set_complete(self) -> None:
        super().set_complete()
        if not self._appending:
            self.ended.set()


class EdgeRequest(TrioRequest):
    body_class = EdgeBody


async def discard_body(seconds: float) -> None:
    """Wait until the current request's body has arrived, unless it has none or takes longer than `seconds`."""
    expected = request.content_length or "Transfer-Encoding" in request.headers
    if expected and isinstance(request.body, EdgeBody):
        with trio.move_on_after(seconds):
            await request.body.ended.wait()

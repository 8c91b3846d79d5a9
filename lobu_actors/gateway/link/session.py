"""The traffic of one open link, the same on both sides: one task sends, one receives, one listens to the heart.

What goes out is of two kinds. Messages that were sent are queued, at most `QUEUED_MESSAGES`; who asks for more than it
reads is cut. What can be told anew at any time (the text of a turn, above all) is not queued: `pull` gives the next
such message when the connection has room for it, so output coalesces by itself and a slow peer costs no memory.

A peer that does not take a frame for `STALLED_SECONDS`, or does not answer a ping for `SILENT_SECONDS`, is cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from lobu_actors.gateway.link import wire

QUEUED_MESSAGES = 2000
STALLED_SECONDS = 5.0
BEAT_SECONDS = 1.0
SILENT_SECONDS = 3.0
CLOSE_SECONDS = 1.0


class LinkSession:
    """`receive` handles a frame at once and may raise WireError; `pull` gives a frame or None; `beat` is called with
    each heartbeat, and gives why the link must end, if it must."""

    def __init__(
        self,
        websocket: WebSocketConnection,
        receive: Callable[[str | bytes], None],
        pull: Callable[[], str | None],
        beat: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._websocket = websocket
        self._receive = receive
        self._pull = pull
        self._beat = beat
        self._queue: deque[wire.Message] = deque()
        self._more = trio.Event()
        self._ended: str | None = None
        self._scope = trio.CancelScope()
        self.lag_seconds: float | None = None  # of the last heartbeat: there and back

    async def run(self) -> str:
        """Until one of the sides ends it; gives the reason."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive_all)
                nursery.start_soon(self._send_all)
                nursery.start_soon(self._listen_to_the_heart)
        return self._ended or "stopped"

    def send(self, message: wire.Message) -> bool:
        """Queue it. False: the link has ended, or ends now, because the other side does not take what it asked for."""
        if self._ended is not None:
            return False
        if len(self._queue) >= QUEUED_MESSAGES:
            self.end("the other side does not read")
            return False
        self._queue.append(message)
        self.has_more()
        return True

    def has_more(self) -> None:
        """`pull` has something to give."""
        self._more.set()

    def end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
        self._scope.cancel()

    async def _receive_all(self) -> None:
        try:
            while True:
                self._receive(await self._websocket.get_message())
        except ConnectionClosed as closed:
            self.end(closing_reason(closed))
        except wire.WireError as error:
            self.end(f"the other side broke the protocol: {error}")

    async def _send_all(self) -> None:
        try:
            while True:
                while self._queue:
                    await self._write(wire.encode(self._queue.popleft()))
                frame = self._pull()
                if frame is not None:
                    await self._write(frame)
                elif not self._queue:
                    await self._more.wait()
                    self._more = trio.Event()
        except ConnectionClosed as closed:
            self.end(closing_reason(closed))
        except wire.WireError as error:
            self.end(str(error))

    async def _write(self, frame: str) -> None:
        with trio.move_on_after(STALLED_SECONDS) as scope:
            await self._websocket.send_message(frame)
        if scope.cancelled_caught:
            self.end("the other side does not read")

    async def _listen_to_the_heart(self) -> None:
        try:
            while True:
                await trio.sleep(BEAT_SECONDS)
                reason = self._beat()
                if reason is not None:
                    self.end(reason)
                asked = trio.current_time()
                with trio.move_on_after(SILENT_SECONDS) as scope:
                    await self._websocket.ping()
                self.lag_seconds = trio.current_time() - asked
                if scope.cancelled_caught:
                    self.end("no heartbeat")
        except ConnectionClosed as closed:
            self.end(closing_reason(closed))


def closing_reason(closed: ConnectionClosed) -> str:
    reason: Any = closed.reason
    return "closed" if reason is None else str(reason.reason or reason.name.lower().replace("_", " "))


async def close(websocket: WebSocketConnection, code: int = 1000, reason: str | None = None) -> None:
    """Bounded; whatever the other side does, the connection is gone afterwards."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
        await websocket.aclose(code, reason)

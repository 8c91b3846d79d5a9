"""One side's sending of one worker's messages, over one connection after another. Both sides use it.

Owns the outbox and when what is received is said. Whoever puts waits while much is under way, so that what lies here is
bounded; a connection that fails ends its `send_over` and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from lobu_actors.contract import worker_link as link
from lobu_actors.contract.worker_link import Outbox, Received

WINDOW_BYTES = 4 * 1024 * 1024
SAY_RECEIVED_EVERY = 32  # messages
BEAT_SECONDS = 5.0  # a sign of life at least so often

Send = Callable[[str], Awaitable[None]]


class Sending:
    def __init__(self) -> None:
        self._outbox = Outbox()
        self._more = trio.Event()
        self._room = trio.Event()
        self._received = 0
        self._said = 0
        self._abandoned = False
        self._resumed = 0

    def abandon(self) -> None:
        """Nobody will receive it: what waits to put goes on, and what is put is dropped."""
        self._abandoned = True
        self._outbox = Outbox()
        self._room.set()

    @property
    def received(self) -> int:
        """How many of the other side's counted messages came here."""
        return self._received

    @property
    def pending_bytes(self) -> int:
        return self._outbox.pending_bytes

    async def put(self, text: str) -> None:
        """Waits while more than the window is under way."""
        while self._outbox.pending_bytes > WINDOW_BYTES:
            await self._until_room()
        self.put_now(text)

    def put_now(self, text: str) -> None:
        if not self._abandoned:
            self._outbox.put(text)
            self._more.set()

    def count(self) -> None:
        """A counted message came; it is ours now, whatever becomes of the connection."""
        self._received += 1
        if self._received - self._said >= SAY_RECEIVED_EVERY:
            self._more.set()

    def acknowledged(self, number: int) -> None:
        """Raises LinkError."""
        self._outbox.received(number)
        self._room.set()

    def resume(self, number: int) -> None:
        """Before `send_over` a new connection; over those before nothing more is sent. Raises LinkError."""
        self._outbox.resume(number)
        self._resumed += 1
        self._room.set()

    async def send_over(self, send: Send) -> None:
        """Until cancelled, or what `send` raises, or until `resume`: what is sent again is the next connection's."""
        resumed = self._resumed
        while True:
            self._more = trio.Event()
            while self._resumed == resumed and (text := self._outbox.next()) is not None:
                await send(text)
            if self._resumed != resumed:
                return
            if self._received - self._said < SAY_RECEIVED_EVERY:
                with trio.move_on_after(BEAT_SECONDS) as waiting:
                    await self._more.wait()
                if not waiting.cancelled_caught:
                    continue
            self._said = self._received
            await send(link.encode(Received(self._said)))

    async def until_received(self) -> None:
        """Until the other side has everything; the caller bounds it."""
        while not self._outbox.empty:
            await self._until_room()

    async def _until_room(self) -> None:
        if self._room.is_set():
            self._room = trio.Event()
        await self._room.wait()

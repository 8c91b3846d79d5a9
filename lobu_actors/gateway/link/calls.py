"""The calls that are under way over one link, by their number. A late answer finds nobody and is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from lobu_actors.gateway.link import wire


@attrs.define
class PendingCall:
    call_id: int
    pieces: list[bytes] | None
    ended: trio.Event = attrs.field(factory=trio.Event)
    reply: wire.Reply | None = None


class Calls:
    def __init__(self) -> None:
        self._pending: dict[int, PendingCall] = {}
        self._next_id = 0

    @contextmanager
    def call(self, pieces: list[bytes] | None) -> Iterator[PendingCall]:
        """`pieces` gets those that come before the reply; without it they break the protocol."""
        self._next_id += 1
        pending = self._pending[self._next_id] = PendingCall(self._next_id, pieces)
        try:
            yield pending
        finally:
            self._pending.pop(pending.call_id, None)

    def take(self, message: wire.Reply | wire.Piece) -> None:
        """Raises WireError."""
        pending = self._pending.get(message.call_id)
        if pending is None:
            return
        if isinstance(message, wire.Reply):
            pending.reply = message
            pending.ended.set()
        elif pending.pieces is None:
            raise wire.WireError("pieces of what has none")
        else:
            pending.pieces.append(message.data)

    def fail_all(self) -> None:
        """The link is gone: nobody will answer."""
        for pending in self._pending.values():
            pending.ended.set()
        self._pending.clear()

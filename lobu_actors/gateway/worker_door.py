"""How the link of a remote worker gets from the edge where it arrives to a host: a pipe of text messages.

An edge sees only this. A door knows the hosts that can be reached, and opens pipes to them; what is said over a pipe is
`contract.worker_link`'s, and what becomes of it the host's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import attrs
import msgspec
import trio

WAITING_MESSAGES = 8  # in each direction of a pipe in memory


class CannotReach(Exception):
    """That host takes no pipe just now."""


class PipeClosed(Exception):
    """The other end closed it, or is gone. `code` as a WebSocket's close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Joining(msgspec.Struct, frozen=True):
    """What the credential of a remote worker says: whose conversations it may have, and as which type."""

    organization_id: str
    worker: str


class WorkerPipe(Protocol):
    """One task sends and one receives at a time."""

    async def send(self, text: str) -> None:
        """Waits while the other end does not take it. Raises PipeClosed."""
        ...

    async def receive(self) -> str:
        """Raises PipeClosed, once what was sent before was received."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """May be called again, and by any task; ends a `receive` of this end too. Raises nothing."""
        ...


class WorkerDoor(Protocol):
    async def hosts(self) -> Sequence[str]:
        """The ids of the hosts that can be reached, this machine's first."""
        ...

    async def open(self, host_id: str, joining: Joining) -> WorkerPipe:
        """Raises CannotReach."""
        ...


@attrs.define
class _Shared:
    closed: tuple[int, str] | None = None


class MemoryPipe:
    """One end of a pipe within a process."""

    def __init__(
        self, outgoing: trio.MemorySendChannel[str], incoming: trio.MemoryReceiveChannel[str], shared: _Shared
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._shared = shared

    async def send(self, text: str) -> None:
        try:
            await self._outgoing.send(text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._closed() from None

    async def receive(self) -> str:
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._closed() from None

    async def close(self, code: int, reason: str) -> None:
        if self._shared.closed is None:
            self._shared.closed = code, reason
        with suppress(trio.ClosedResourceError):
            self._outgoing.close()
            self._incoming.close()

    def _closed(self) -> PipeClosed:
        return PipeClosed(*(self._shared.closed or (1006, "the other end is gone")))


def memory_pipe() -> tuple[MemoryPipe, MemoryPipe]:
    """Both ends of a new pipe."""
    here, there = (trio.open_memory_channel[str](WAITING_MESSAGES) for _ in range(2))
    shared = _Shared()
    return MemoryPipe(here[0], there[1], shared), MemoryPipe(there[0], here[1], shared)

"""What hosts ask of the store in order to reach each other: directly or, where they cannot, through the store."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from lobu_actors.contract.ids import ConversationRef


class Peer(msgspec.Struct, frozen=True):
    """Another live host; `link_url` None: it listens for no links."""

    host_id: str
    link_url: str | None


class Notices(Protocol):
    """Hears what is told to one host."""

    async def receive(self) -> list[str]:
        """What was told since, at least one, waiting for it. Raises StoreUnavailable: some may have been missed."""
        ...


class LinkStore(Protocol):
    """Nothing here is needed for correctness."""

    async def find_peers(self, host_id: str) -> list[Peer]:
        """The live hosts but this one."""
        ...

    async def find_owner(self, ref: ConversationRef) -> str | None:
        """The live host that holds the conversation's lease, as of now: a hint to whoever does not hold it itself."""
        ...

    async def notify(self, host_id: str, payload: str) -> None:
        """Tell a host, if it listens just now; below 8,000 bytes."""
        ...

    async def declare_dead_if_gone(self, host_id: str) -> bool:
        """For a host that cannot be reached: end its life if it does not listen for notices any more either.

        False: it does, or it was dead already.
        """
        ...

    def listening(self, host_id: str) -> AbstractAsyncContextManager[Notices]:
        """Raises StoreUnavailable."""
        ...

"""What hosts ask of the store about themselves and each other: who lives, who goes with whom, who has how much."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import Alone, HostState
from lobu_actors.store.link_records import NO_LINKS, Links
from lobu_actors.store.records import Host


class Rival(msgspec.Struct, frozen=True):
    """A live host that does not go together with another one, because this or that one tolerates none beside it."""

    host_id: str
    name: str
    age_seconds: float
    expires_in_seconds: float
    alone: Alone | None  # None: it is the other one that tolerates none


class HostLoad(msgspec.Struct, frozen=True):
    """What placing a conversation has to know of a live host."""

    host_id: str
    state: HostState
    runs: int  # under way at its last renewal
    room: int | None = None  # for further workers, then; None: it does not say

    @property
    def is_full(self) -> bool:
        return self.room is not None and self.room <= 0


class MembershipStore(Protocol):
    """Only the database's clock judges an expiry."""

    async def register_host(
        self,
        host_id: str,
        *,
        name: str,
        link_url: str | None,
        version: str,
        ttl_seconds: float,
        renew_seconds: float = 0.0,
        alone: Alone | None = None,
    ) -> None:
        """`alone`: why it tolerates no other beside it. Expired ones that it does not go with are dead then.

        `renew_seconds`: how soon it means to renew, and the others too; see `renew_host`.
        """
        ...

    async def find_rivals(self, host_id: str) -> list[Rival]:
        """The live hosts that this registered one does not go together with, oldest first.

        Of two that register at the same time, at least one sees the other.
        """
        ...

    async def renew_host(
        self,
        host_id: str,
        *,
        ttl_seconds: float,
        renew_seconds: float = 0.0,
        state: HostState,
        runs: int = 0,
        room: int | None = None,
        links: Links = NO_LINKS,
    ) -> HostState | None:
        """Gives the state, which is DRAINING when somebody asked for that. None: this host was declared dead and must
        not go on under this id. `links` are for who looks at the cluster.

        A host that has not renewed for `ttl_seconds - renew_seconds` may have missed the database together with others:
        from then on, and for `ttl_seconds` behind its next renewal, it takes over from none that is not declared dead.
        """
        ...

    async def drain_host(self, host_id: str) -> bool:
        """Ask a host to drain. False: it is not alive. It stays so: there is no way back but a new start."""
        ...

    async def find_loads(self) -> list[HostLoad]:
        """The live hosts."""
        ...

    async def declare_host_dead(self, host_id: str) -> None:
        """For a host that is known to be gone: ourselves at the end, or a predecessor whose state directory we hold."""
        ...

    async def find_held(self, host_id: str, refs: Collection[ConversationRef]) -> set[ConversationRef]:
        """Those whose lease this host has."""
        ...

    async def list_hosts(self) -> list[Host]:
        """All that have a row, with what they hold counted: dear where much is held."""
        ...

    async def list_newest_hosts(self, *, limit: int) -> list[Host]:
        """Those whose leases end last. Nothing is counted: `leases`, `epochs`, `queued` and `running` are 0."""
        ...

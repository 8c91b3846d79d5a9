"""The gateway of an edge in a process of its own: over a unix socket to this machine's supervisor, and to other hosts'.

Each start of a supervisor is another host id, so that the link's address stays and whom it leads to changes: who that
is now, its supervisor has put on record. While nobody is there, nothing is owned or told: messages are accepted all the
same, and readers look into the log.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial

import trio

from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.gateway.feed import Feed, Feeds
from lobu_actors.gateway.link.auth import HostTokens
from lobu_actors.gateway.link.client import LinkClient
from lobu_actors.gateway.link.peers import REFRESH_SECONDS, FindPeers, Peers
from lobu_actors.gateway.link.router import FindOwner, Router
from lobu_actors.gateway.link.worker_pipe import LinkDoor
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.protocol import CancelResult, LiveStatus
from lobu_actors.gateway.standby import Standby
from lobu_actors.gateway.status import HostStatus
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.records import Turn

LOOK_SECONDS = 0.05  # between two looks at who the supervisor is; a look costs one small read


class Detached:
    """`gateway` is what the edge calls, while `run` runs, and `worker_door` where links of remote workers go.

    `supervisor_id` reads the record; None: there is none."""

    def __init__(
        self,
        supervisor_id: Callable[[], str | None],
        url: str,
        find_peers: FindPeers,
        find_owner: FindOwner,
        tokens: HostTokens,
        clock_ms: Callable[[], int],
    ) -> None:
        self._supervisor_id = supervisor_id
        self._url = url
        self._find_peers = find_peers
        self._others: dict[str, Peer] = {}
        self._look_again_at = 0.0  # trio clock
        me, owners = f"edge-{new_id()}", Owners()
        self._timers = Timers()
        feeds = Feeds(clock_ms, self._timers)
        self._peers = Peers(lambda: me, self._find, tokens, feeds, owners, refresh_seconds=LOOK_SECONDS)
        self.worker_door = LinkDoor(lambda: me, tokens, partial(self._find, me))
        self.gateway = Router(_Local(self), owners, self._peers, find_owner)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._timers.fire)
            nursery.start_soon(self._peers.run)
            nursery.start_soon(self.worker_door.run)

    async def linked(self) -> None:
        """Until the supervisor of this machine is linked; the caller bounds it."""
        while True:
            if self.client() is not None:
                return
            await trio.sleep(LOOK_SECONDS)

    def client(self) -> LinkClient | None:
        """The link to this machine's supervisor, when it is up."""
        return self._peers.client(self._supervisor_id())

    def reading(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        return self._peers.mirrors.reading(ref)

    async def _find(self, me: str) -> list[Peer]:
        if trio.current_time() >= self._look_again_at:
            self._look_again_at = trio.current_time() + REFRESH_SECONDS
            with suppress(StoreUnavailable):  # those that were known are as good as ever
                self._others = {peer.host_id: peer for peer in await self._find_peers(me)}
        local = self._supervisor_id()
        others = [peer for peer in self._others.values() if peer.host_id != local]
        return [Peer(local, self._url), *others] if local else others


class _Local:
    """Implements `Gateway` over whatever link there is to this machine's supervisor just now."""

    def __init__(self, detached: Detached) -> None:
        self._detached = detached

    @property
    def draining(self) -> bool:
        client = self._detached.client()
        return client is not None and client.draining

    async def stand_by(self, ref: ConversationRef) -> Standby | None:
        return None

    async def accepted(self, turn: Turn) -> None:
        if (client := self._detached.client()) is not None:
            client.hint(turn.ref, turn.message_id)

    def open_feed(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        return self._detached.reading(ref)

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        client = self._detached.client()
        return CancelResult.UNREACHABLE if client is None else await client.cancel(ref, message_id)

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        if (client := self._detached.client()) is not None:
            client.answered(ref, question_id, answer)

    async def close(self, ref: ConversationRef) -> bool:
        client = self._detached.client()
        return client is not None and await client.close(ref)

    async def live_status(self, ref: ConversationRef) -> LiveStatus:
        client = self._detached.client()
        found = None if client is None else await client.live_status(ref)
        return found or LiveStatus(active=False)

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        client = self._detached.client()
        return None if client is None else await client.session_bytes(ref)

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        client = self._detached.client()
        return None if client is None else await client.purge_snapshots(ref, run_id)

    async def look(self, organization_id: str) -> list[HostStatus]:
        return []  # its own supervisor is one of the peers that are asked

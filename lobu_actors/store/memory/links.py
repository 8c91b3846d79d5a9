"""What hosts ask about each other, and notices between them, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import HostState
from lobu_actors.store.link_protocol import Peer
from lobu_actors.store.memory.tables import Part, pass_checkpoint


class LinkPart(Part):
    """Implements `link_protocol.LinkStore`."""

    async def find_peers(self, host_id: str) -> list[Peer]:
        await pass_checkpoint()
        live = [host for key, host in self.tables.hosts.items() if key != host_id and self.tables.host_lives(key)]
        return [Peer(host.host_id, host.link_url) for host in sorted(live, key=lambda host: host.host_id)]

    async def find_owner(self, ref: ConversationRef) -> str | None:
        await pass_checkpoint()
        lease = self.tables.leases.get((ref.organization_id, ref.conversation_id))
        return lease.host_id if lease is not None and self.tables.host_lives(lease.host_id) else None

    async def notify(self, host_id: str, payload: str) -> None:
        await pass_checkpoint()
        for listener in self.tables.listeners.get(host_id, []):
            listener.told.append(payload)
            listener.waiting.unpark_all()

    async def declare_dead_if_gone(self, host_id: str) -> bool:
        await pass_checkpoint()
        host = self.tables.hosts.get(host_id)
        if host is None or host.state is HostState.DEAD or self.tables.listeners.get(host_id):
            return False
        host.state, host.expires_at = HostState.DEAD, min(host.expires_at, self.tables.clock())
        return True

    @asynccontextmanager
    async def listening(self, host_id: str) -> AsyncIterator[MemoryNotices]:
        await pass_checkpoint()
        listener = MemoryNotices()
        self.tables.listeners.setdefault(host_id, []).append(listener)
        try:
            yield listener
        finally:
            self.tables.listeners[host_id].remove(listener)


class MemoryNotices:
    """Implements `link_protocol.Notices`."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waiting = trio.lowlevel.ParkingLot()

    async def receive(self) -> list[str]:
        await pass_checkpoint()
        while not self.told:
            await self.waiting.park()
        told, self.told = self.told, []
        return told

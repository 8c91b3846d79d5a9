"""The gateway of a host that has peers: each call goes to the conversation's owner, wherever that is.

Who owns it is a guess: what this process owns itself it knows, of others it remembers what it last heard. A wrong guess
is put right by whoever is asked; in the end the actor here asks for the lease, takes it or learns who has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import TypeVar

import structlog
import trio

from lobu_actors import telemetry
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.link.client import LinkClient
from lobu_actors.gateway.link.peers import Peers
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.protocol import CancelResult, Gateway, LiveStatus
from lobu_actors.gateway.standby import Standby
from lobu_actors.gateway.status import HostStatus
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.records import Turn

log = structlog.get_logger(__name__)

MAX_HOPS = 3
MOST_LOOKED_AT = 32  # hosts, this one included: each tells some 20 kB of itself
_T = TypeVar("_T")
FindOwner = Callable[[ConversationRef], Awaitable[str | None]]


class Router:
    """Implements `Gateway` over the one of this host and the links to others."""

    def __init__(self, local: Gateway, owners: Owners, peers: Peers, find_owner: FindOwner) -> None:
        self._local = local
        self._owners = owners
        self._peers = peers
        self._find_owner = find_owner

    @property
    def draining(self) -> bool:
        return self._local.draining

    async def stand_by(self, ref: ConversationRef) -> Standby | None:
        return await self._local.stand_by(ref)

    async def accepted(self, turn: Turn) -> None:
        client = self._owner(turn.ref)
        if client is not None and client.hint(turn.ref, turn.message_id):
            telemetry.LINK_FORWARDS.labels("hint").inc()
        else:
            await self._local.accepted(turn)

    def open_feed(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        return self._peers.mirrors.reading(ref)

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        return await self._ask(
            "cancel",
            ref,
            lambda gateway: gateway.cancel(ref, message_id),
            lambda result: result is not CancelResult.UNREACHABLE,
        )

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        client = self._owner(ref)
        if client is not None and client.answered(ref, question_id, answer):
            telemetry.LINK_FORWARDS.labels("answer").inc()
        else:
            await self._local.answered(ref, question_id, answer)

    async def close(self, ref: ConversationRef) -> bool:
        return await self._ask("close", ref, lambda gateway: gateway.close(ref), lambda closed: closed)

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        return await self._ask(
            "purge", ref, lambda gateway: gateway.purge_snapshots(ref, run_id), lambda number: number is not None
        )

    async def live_status(self, ref: ConversationRef) -> LiveStatus:
        here = await self._local.live_status(ref)
        client = await self._found(ref)
        there = None if client is None else await client.live_status(ref)
        if there is None:
            return here
        return LiveStatus(there.active, there.queued, there.running, max(there.streams, here.streams))

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        here = await self._local.session_bytes(ref)
        if here is not None:
            return here
        client = await self._found(ref)
        return None if client is None else await client.session_bytes(ref)

    async def look(self, organization_id: str) -> list[HostStatus]:
        found = {one.host_id: one for one in await self._local.look(organization_id)}

        async def ask(client: LinkClient) -> None:
            if (one := await client.look(organization_id)) is not None:
                found[one.host_id] = one

        async with trio.open_nursery() as nursery:
            for client in islice(self._peers.clients(), MOST_LOOKED_AT - 1):
                nursery.start_soon(ask, client)
        return list(found.values())

    async def _ask(
        self,
        method: str,
        ref: ConversationRef,
        ask: Callable[[Gateway | LinkClient], Awaitable[_T]],
        is_answer: Callable[[_T], bool],
    ) -> _T:
        """Ask whoever is believed to be the owner, and whoever that one names; at most once each."""
        asked: set[str | None] = set()
        while True:
            host_id = self._owners.elsewhere(ref)
            client = None if host_id in asked else self._peers.client(host_id)
            if client is None:
                host_id = None
            else:
                telemetry.LINK_FORWARDS.labels(method).inc()
            asked.add(host_id)
            result = await ask(client or self._local)
            if is_answer(result) or len(asked) == MAX_HOPS or not self._may_ask(ref, asked):
                return result

    def _may_ask(self, ref: ConversationRef, asked: set[str | None]) -> bool:
        host_id = self._owners.elsewhere(ref)
        return None not in asked or (host_id not in asked and self._peers.client(host_id) is not None)

    def _owner(self, ref: ConversationRef) -> LinkClient | None:
        return self._peers.client(self._owners.elsewhere(ref))

    async def _found(self, ref: ConversationRef) -> LinkClient | None:
        """The owner's link; who the owner is is looked up when nothing is known."""
        if self._owners.epoch_here(ref) is None and self._owners.elsewhere(ref) is None:
            try:
                host_id = await self._find_owner(ref)
            except StoreUnavailable:
                host_id = None
            if host_id is not None:
                self._owners.heard(ref, host_id)
        return self._owner(ref)

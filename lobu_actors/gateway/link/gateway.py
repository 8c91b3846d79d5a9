"""The gateway of an edge in a process of its own: everything is asked of ONE supervisor, which routes no further."""

from __future__ import annotations

from contextlib import AbstractContextManager

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.link.client import LinkClient
from lobu_actors.gateway.link.mirrors import Mirrors
from lobu_actors.gateway.protocol import CancelResult, LiveStatus
from lobu_actors.store.records import Turn


class LinkGateway:
    """Implements `Gateway`. `client` was added to `mirrors`, and is run by whoever made it."""

    def __init__(self, client: LinkClient, mirrors: Mirrors) -> None:
        self._client = client
        self._mirrors = mirrors

    @property
    def draining(self) -> bool:
        return self._client.draining

    async def accepted(self, turn: Turn) -> None:
        self._client.hint(turn.ref, turn.message_id)

    def open_feed(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        return self._mirrors.reading(ref)

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        return await self._client.cancel(ref, message_id)

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        self._client.answered(ref, question_id, answer)

    async def close(self, ref: ConversationRef) -> bool:
        return await self._client.close(ref)

    async def live_status(self, ref: ConversationRef) -> LiveStatus:
        return await self._client.live_status(ref) or LiveStatus(active=False)

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        return await self._client.session_bytes(ref)

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        return await self._client.purge_snapshots(ref, run_id)

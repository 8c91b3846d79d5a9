"""What a page that people look at lists, on Postgres."""

from __future__ import annotations

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import TurnStatus
from lobu_actors.store.driver import Row
from lobu_actors.store.listing_protocol import (
    CONTENT_CHARS,
    TITLE_CHARS,
    ListedConversation,
    ListedTurn,
    TurnEnding,
)
from lobu_actors.store.postgres.rows import CONVERSATION_COLUMNS, Part, ref_params, to_conversation

_TURN_COLUMNS = 8


class ListingPart(Part):
    """Implements `listing_protocol.ListingStore`."""

    async def list_conversations_of_user(
        self, organization_id: str, user_id: str, *, limit: int, newest: int
    ) -> list[ListedConversation]:
        params = {
            "organization_id": organization_id,
            "user_id": user_id,
            "limit": limit,
            "newest": newest,
            "title_chars": TITLE_CHARS,
        }
        rows = await self.read("list_conversations_of_user", params)
        return [
            ListedConversation(to_conversation(organization_id, row[:CONVERSATION_COLUMNS]), row[-1]) for row in rows
        ]

    async def list_owed_turns(self, ref: ConversationRef, *, limit: int) -> list[ListedTurn]:
        params = ref_params(ref) | {"limit": limit, "content_chars": CONTENT_CHARS}
        return [_to_turn(row) for row in await self.read("list_owed_turns", params)]

    async def list_ended_turns(
        self, ref: ConversationRef, *, before_seq: int, limit: int, max_bytes: int
    ) -> list[ListedTurn]:
        params = ref_params(ref) | {
            "before_seq": before_seq,
            "limit": limit,
            "max_bytes": max_bytes,
            "content_chars": CONTENT_CHARS,
        }
        return [_to_turn(row) for row in await self.read("list_ended_turns", params)]


def _to_turn(row: Row) -> ListedTurn:
    turn_id, message_id, content, status, attempt, accepted_at, first_seq, error_code = row[:_TURN_COLUMNS]
    ending = None
    if len(row) > _TURN_COLUMNS:
        seq, kind, data, questions = row[_TURN_COLUMNS:]
        ending = TurnEnding(seq, EventType(kind), data, tuple(questions))
    return ListedTurn(
        turn_id, message_id, content, TurnStatus(status), attempt, accepted_at, first_seq, error_code, ending
    )

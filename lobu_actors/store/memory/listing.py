"""What a page that people look at lists, in memory."""

from __future__ import annotations

import msgspec

from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.listing_protocol import (
    CONTENT_CHARS,
    TITLE_CHARS,
    ListedConversation,
    ListedTurn,
    TurnEnding,
)
from lobu_actors.store.memory.tables import ConversationRow, Part, pass_checkpoint
from lobu_actors.store.records import Event, Turn

_ASKING = frozenset({EventType.QUESTION, EventType.QUESTION_ANSWERED})


class ListingPart(Part):
    """Implements `listing_protocol.ListingStore`."""

    async def list_conversations_of_user(
        self, organization_id: str, user_id: str, *, limit: int, newest: int
    ) -> list[ListedConversation]:
        await pass_checkpoint()
        rows = [
            row
            for row in self.tables.conversations.values()
            if (row.ref.organization_id, row.user_id) == (organization_id, user_id) and row.closing_at is None
        ]
        rows = sorted(rows, key=lambda row: row.created_at, reverse=True)[:newest]
        rows.sort(key=lambda row: row.ref.conversation_id)
        rows.sort(key=lambda row: row.last_activity_at, reverse=True)
        listed = [ListedConversation(self.tables.view(row), self._title(row)) for row in rows[:limit]]
        listed.sort(key=lambda one: one.conversation.ref.conversation_id)
        return sorted(listed, key=lambda one: one.conversation.last_activity_at, reverse=True)

    async def list_owed_turns(self, ref: ConversationRef, *, limit: int) -> list[ListedTurn]:
        await pass_checkpoint()
        turns = [self.tables.turns.get((ref.organization_id, marker.turn_id)) for marker in self.tables.owed(ref)]
        return [_listed(turn) for turn in turns[:limit] if turn is not None]

    async def list_ended_turns(
        self, ref: ConversationRef, *, before_seq: int, limit: int, max_bytes: int
    ) -> list[ListedTurn]:
        await pass_checkpoint()
        row = self.tables.conversation(ref)
        if row is None:
            return []
        ended = [event for event, _ in row.events if event.type in TERMINAL_EVENTS and event.seq < before_seq]
        found: list[ListedTurn] = []
        total = 0
        for nth, event in enumerate(ended[: -limit - 1 : -1]):
            total += len(msgspec.json.encode(event.data))
            turn = self.tables.turns.get((ref.organization_id, event.turn_id or ""))
            if turn is not None and (nth == 0 or total <= max_bytes):
                found.append(_listed(turn, _ending(row, turn, event)))
        return found

    def _title(self, row: ConversationRow) -> str | None:
        said = next((event.turn_id for event, _ in row.events if event.turn_id is not None), None)
        if said is None:
            owed = self.tables.owed(row.ref)
            said = owed[0].turn_id if owed else None
        turn = self.tables.turns.get((row.ref.organization_id, said or ""))
        return None if turn is None else turn.content[:TITLE_CHARS]


def _listed(turn: Turn, ending: TurnEnding | None = None) -> ListedTurn:
    return ListedTurn(
        turn.turn_id,
        turn.message_id,
        turn.content[:CONTENT_CHARS],
        turn.status,
        turn.attempt,
        turn.accepted_at,
        turn.first_seq,
        turn.error_code,
        ending,
    )


def _ending(row: ConversationRow, turn: Turn, end: Event) -> TurnEnding:
    asked = tuple(
        event.data
        for event, _ in row.events
        if event.turn_id == turn.turn_id and event.type in _ASKING and turn.first_seq < event.seq < end.seq
    )
    return TurnEnding(end.seq, end.type, end.data, asked)

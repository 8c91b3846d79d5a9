"""What a page that people look at asks of the store, and the records that it is given. Changes nothing.

Nothing here decides who may see what: the caller names the user, or a conversation that it was let into.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec

from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import TurnStatus
from lobu_actors.store.records import Conversation

TITLE_CHARS = 120
CONTENT_CHARS = 20_000  # of a message; a page shows no more of it


class ListedConversation(msgspec.Struct, frozen=True):
    conversation: Conversation
    title: str | None  # the beginning of its first message that is kept; None: there is none


class TurnEnding(msgspec.Struct, frozen=True):
    """A turn's terminal event, and the data of the questions before it and of their answers, in their order."""

    seq: int
    type: EventType
    data: Data
    questions: tuple[Data, ...] = ()


class ListedTurn(msgspec.Struct, frozen=True):
    turn_id: str
    message_id: str
    content: str  # its first `CONTENT_CHARS`
    status: TurnStatus
    attempt: int
    accepted_at: datetime
    first_seq: int
    error_code: str | None = None
    ending: TurnEnding | None = None  # None: it is owed


class ListingStore(Protocol):
    async def list_conversations_of_user(
        self, organization_id: str, user_id: str, *, limit: int, newest: int
    ) -> list[ListedConversation]:
        """Open ones, the last active first: of the `newest` that the user began, `limit` at most."""
        ...

    async def list_owed_turns(self, ref: ConversationRef, *, limit: int) -> list[ListedTurn]:
        """Oldest first."""
        ...

    async def list_ended_turns(
        self, ref: ConversationRef, *, before_seq: int, limit: int, max_bytes: int
    ) -> list[ListedTurn]:
        """Those whose terminal events are the newest with seq < `before_seq`, newest first.

        Fewer when their terminal events are together larger than about `max_bytes`; at least one if there is one.
        """
        ...

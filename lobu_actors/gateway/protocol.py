"""The gateway: everything that an edge asks of a supervisor. Implementations: in memory, and over a link.

Nothing here is needed for correctness: an accepted turn is in Postgres, and a terminal event is in the log. A call that
is lost costs latency. So calls are bounded and never raise for a supervisor that is away; they say so in their result.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

import msgspec

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.gateway.feed import Feed
from lobu_actors.gateway.standby import Standby
from lobu_actors.gateway.status import HostStatus
from lobu_actors.store.records import Turn


class CancelResult(StrEnum):
    ACCEPTED = "accepted"  # `cancel` and `cancelled` events follow
    NOTHING_TO_CANCEL = "nothing"  # no such message owed: it had ended before
    UNREACHABLE = "unreachable"  # the owner did not take the call in time


class LiveStatus(msgspec.Struct, frozen=True):
    """What the owner's actor knows about a conversation right now."""

    active: bool  # an actor is in memory
    queued: int = 0
    running: int = 0
    streams: int = 0  # readers attached to the feed


class Gateway(Protocol):
    @property
    def draining(self) -> bool:
        """True once this host is going away: streams say `drain` and end."""
        ...

    async def stand_by(self, ref: ConversationRef) -> Standby | None:
        """Take what the conversation's actor, if it is in this process, holds ready for the next message. To be settled
        whatever happens, and soon."""
        ...

    async def accepted(self, turn: Turn) -> None:
        """Hint that a turn was committed. Returns soon; never waits for the turn."""
        ...

    def open_feed(self, ref: ConversationRef) -> AbstractContextManager[Feed]:
        """The live view of one conversation, kept as long as the context is open."""
        ...

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        """Cancel one message, or with None everything that is owed."""
        ...

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        """Hint that this answer was stored as the first. Lost, it is found within seconds."""
        ...

    async def close(self, ref: ConversationRef) -> bool:
        """Hint that the conversation was marked closing. True once `closed` is in the log."""
        ...

    async def live_status(self, ref: ConversationRef) -> LiveStatus: ...

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        """The session file on its owner's disk as it stands, torn last line included; activates nothing.

        None: it is not there, or it is no more than what the store has.
        """
        ...

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        """For the worker of a live run: delete what is stored of the conversation's sessions, and say how many pieces
        that was. None: the owner was not reached, or that run is not live."""
        ...

    async def look(self, organization_id: str) -> list[HostStatus]:
        """How this host is, and others that can be asked, some thirty at most; of conversations, that organization's.

        Who does not answer within a second is left out.
        """
        ...

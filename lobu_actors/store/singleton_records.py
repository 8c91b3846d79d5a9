"""What the store takes and gives about singletons, and what they must remember. Frozen records, no behaviour."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import msgspec

from lobu_actors.contract.ids import ConversationRef


@attrs.frozen
class SingletonName:
    """Names what runs once in the whole cluster."""

    organization_id: str
    kind: str  # poller, scheduler; never `conversation`
    key: str

    def __attrs_post_init__(self) -> None:
        if self.kind == "conversation":
            raise ValueError("a conversation's lease is taken by its activation")


class SingletonLease(msgspec.Struct, frozen=True):
    """The right to be it, and to write for it."""

    name: SingletonName
    host_id: str
    epoch: int


class WatcherState(msgspec.Struct, frozen=True):
    watcher_id: str
    considered_until: datetime  # firings up to this time are dealt with
    pending_for: datetime | None  # the scheduled time of one that was decided on and not confirmed


class NewDelivery(msgspec.Struct, frozen=True):
    """A debt to a chat: the terminal event of `message_id`, or the sentence that is its `notice`."""

    delivery_id: str
    ref: ConversationRef
    message_id: str
    address: dict[str, Any]  # JSON in the platform's own form
    notice: str | None = None


class OwedDelivery(msgspec.Struct, frozen=True):
    delivery_id: str
    ref: ConversationRef
    message_id: str
    address: dict[str, Any]
    notice: str | None
    parts_sent: int
    has_turn: bool
    terminal_seq: int | None  # of the message's terminal event; None: there is none so far

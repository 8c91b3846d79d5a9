"""Puts the parts together over one set of tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lobu_actors.store.memory.conversations import ConversationPart
from lobu_actors.store.memory.files import FilePart
from lobu_actors.store.memory.hosts import HostPart
from lobu_actors.store.memory.links import LinkPart
from lobu_actors.store.memory.listing import ListingPart
from lobu_actors.store.memory.questions import QuestionPart
from lobu_actors.store.memory.retention import RetentionPart
from lobu_actors.store.memory.rollout import RolloutPart
from lobu_actors.store.memory.sessions import SessionPart
from lobu_actors.store.memory.singletons import SingletonPart
from lobu_actors.store.memory.tables import Tables
from lobu_actors.store.memory.tenants import TenantPart
from lobu_actors.store.memory.tickets import TicketPart
from lobu_actors.store.memory.timelines import TimelinePart

if TYPE_CHECKING:
    from lobu_actors.store.protocol import Store


class MemoryStore(
    TenantPart,
    TicketPart,
    ConversationPart,
    QuestionPart,
    SessionPart,
    RetentionPart,
    HostPart,
    FilePart,
    LinkPart,
    ListingPart,
    SingletonPart,
    RolloutPart,
    TimelinePart,
):
    """Implements `protocol.Store`. `clock` gives seconds since the epoch and stands for the database's clock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(Tables(clock))

    def close(self) -> None:
        """There is nothing to close; here so that it can stand in for the other."""


if TYPE_CHECKING:

    def _implements(store: MemoryStore) -> Store:
        return store

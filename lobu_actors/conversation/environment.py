"""What conversation actors of one host share."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.state import Limits
from lobu_actors.conversation.worker_port import Workers, Workspaces
from lobu_actors.gateway.feed import Feeds
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.protocol import Store


class Busy:
    """Which conversations of this host have a run under way; a drain waits for none to have one."""

    def __init__(self) -> None:
        self._refs: set[ConversationRef] = set()
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._refs)

    def set(self, ref: ConversationRef, busy: bool) -> None:
        if busy:
            self._refs.add(ref)
        elif ref in self._refs:
            self._refs.remove(ref)
            if not self._refs:
                self._changed.set()

    async def wait_none(self) -> None:
        """Until nothing runs; callers bound it."""
        while self._refs:
            self._changed = trio.Event()
            await self._changed.wait()


@attrs.frozen
class Environment:
    host_id: Callable[[], str]  # changes when this process joins again as a new host
    store: Store
    workers: Workers
    workspaces: Workspaces
    feeds: Feeds
    timers: Timers
    busy: Busy
    clock_ms: Callable[[], int]  # wall clock, for timestamps that clients see
    limits: Limits
    max_owed_turns: int
    patience_seconds: float  # how long a write is asked again while the store is away
    handover_seconds: float  # bound on handing a conversation over when the host stops

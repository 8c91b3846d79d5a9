"""What conversation actors of one host share."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from lobu_actors.conversation.state import Limits
from lobu_actors.conversation.worker_port import Workers, Workspaces
from lobu_actors.gateway.feed import Feeds
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.protocol import Store


@attrs.frozen
class Environment:
    host_id: str
    store: Store
    workers: Workers
    workspaces: Workspaces
    feeds: Feeds
    timers: Timers
    clock_ms: Callable[[], int]  # wall clock, for timestamps that clients see
    limits: Limits
    max_owed_turns: int
    patience_seconds: float  # how long a write is asked again while the store is away
    handover_seconds: float  # bound on handing a conversation over when the host stops

"""What conversation actors of one host share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Literal

import attrs
import msgspec
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.agent_rules import AgentsInUse
from lobu_actors.conversation.commit import Patience
from lobu_actors.conversation.messages import Message
from lobu_actors.conversation.placement import HereAlways, Placement
from lobu_actors.conversation.promises import Promises
from lobu_actors.conversation.recent import Recent
from lobu_actors.conversation.running_clock import RunningClock
from lobu_actors.conversation.spans import SpanSink
from lobu_actors.conversation.state import Limits
from lobu_actors.conversation.worker_port import Workers, Workspaces
from lobu_actors.gateway.feed import Feeds
from lobu_actors.gateway.owners import Owners
from lobu_actors.gateway.standby import Standbys
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.protocol import Store


class Busy:
    """Which conversations of this host have a run under way; a drain waits for none to have one."""

    def __init__(self) -> None:
        self._refs: set[ConversationRef] = set()
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._refs)

    def has(self, ref: ConversationRef) -> bool:
        return ref in self._refs

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


class FileLimits(msgspec.Struct, frozen=True):
    """Of what one run may leave in output/ to be stored."""

    max_files: int = 10
    file_bytes: int = 50_000_000
    total_bytes: int = 100_000_000


@attrs.define(eq=False)
class Environment:
    """`limits`, `max_owed_turns` and `file_limits` may be replaced; an activation keeps those that it began with."""

    host_id: Callable[[], str]  # changes when this process joins again as a new host
    store: Store
    workers: Workers
    workspaces: Workspaces
    feeds: Feeds
    timers: Timers
    busy: Busy
    promises: Promises
    running: RunningClock  # of all deadlines of a run; stands still while workers are frozen
    clock_ms: Callable[[], int]  # wall clock, for timestamps that clients see
    limits: Limits
    max_owed_turns: int
    patience: Patience  # how long a write is asked again while the store is away
    handover_seconds: float  # bound on handing a conversation over when the host stops
    session_store: Literal["snapshot", "file"] = "snapshot"  # file: on this host's disk only, nothing is stored
    # Makes the token with which a run's worker calls an edge, from conversation, run id and lifetime in seconds.
    run_token: Callable[[ConversationRef, str, float], str] = lambda ref, run_id, seconds: secrets.token_urlsafe(24)
    # Conversations of which the session file on this disk is the one that counts: its actor here laid it out.
    live_sessions: set[ConversationRef] = attrs.field(factory=set)
    file_limits: FileLimits = attrs.field(factory=FileLimits)
    agents: AgentsInUse = attrs.field(factory=AgentsInUse)
    owners: Owners = attrs.field(factory=Owners)
    # What came for a conversation that another live host owns, whose id this is.
    not_ours: Callable[[ConversationRef, str, Message], None] = lambda ref, host_id, message: None
    placement: Placement = attrs.field(factory=HereAlways)
    spans: SpanSink | None = None  # None: nobody wants any, and none are made
    recent: Recent = attrs.field(factory=Recent)
    standbys: Standbys = attrs.field(factory=Standbys)

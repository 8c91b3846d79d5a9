"""A gateway without a supervisor, and an owner that does by hand what a conversation's actor does.

`Owner` keeps commit and telling apart, so that a test can look between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

from lobu_actors.contract import events
from lobu_actors.contract.events import Data, EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import HostState, RunStatus, TurnStatus
from lobu_actors.gateway.feed import Feed, Feeds, LiveText
from lobu_actors.gateway.protocol import CancelResult, LiveStatus
from lobu_actors.gateway.standby import Standby, Standbys
from lobu_actors.gateway.status import HostStatus
from lobu_actors.runtime.timers import Timers
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import Activation, Event, FinishRun, Lease, NewEvent, RequeueRun, StartRun, Turn, TurnEnd

NOW_MS = 1_700_000_000_000
HOST = "host-of-tests"


class FakeGateway:
    """Implements gateway.protocol.Gateway; answers are set by the test, calls are kept."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.feeds = Feeds(lambda: NOW_MS, self.timers)
        self.draining = False
        self.standbys = Standbys()
        self.hints: list[Turn] = []
        self.cancels: list[tuple[ConversationRef, str | None]] = []
        self.closes: list[ConversationRef] = []
        self.cancel_result = CancelResult.ACCEPTED
        self.answers: list[tuple[str, str]] = []
        self.on_accepted: Any = None
        self.sessions: dict[ConversationRef, bytes] = {}  # what an actor here has on its disk
        self.purges: list[tuple[ConversationRef, str]] = []
        self.purge_result: int | None = 0
        self.looks: list[str] = []
        self.hosts: list[HostStatus] = []
        self._changed = trio.lowlevel.ParkingLot()

    async def stand_by(self, ref: ConversationRef) -> Standby | None:
        return await self.standbys.take(ref)

    async def accepted(self, turn: Turn) -> None:
        if self.on_accepted is not None:
            await self.on_accepted(turn)
        self.hints.append(turn)

    def hold_accepted(self) -> tuple[trio.Event, trio.Event]:
        """The first is set once an accepted message is hinted at; the hint goes no further before the second is."""
        entered, go_on = trio.Event(), trio.Event()

        async def hold(_: Turn) -> None:
            entered.set()
            await go_on.wait()

        self.on_accepted = hold
        return entered, go_on

    @contextmanager
    def open_feed(self, ref: ConversationRef) -> Iterator[Feed]:
        try:
            with self.feeds.reading(ref) as feed:
                self._changed.unpark_all()
                yield feed
        finally:
            self._changed.unpark_all()

    async def until_readers(self, ref: ConversationRef, count: int) -> None:
        while self.feeds.readers(ref) != count:
            await self._changed.park()

    async def cancel(self, ref: ConversationRef, message_id: str | None) -> CancelResult:
        self.cancels.append((ref, message_id))
        return self.cancel_result

    async def answered(self, ref: ConversationRef, question_id: str, answer: str) -> None:
        self.answers.append((question_id, answer))

    async def close(self, ref: ConversationRef) -> bool:
        self.closes.append(ref)
        return False

    async def live_status(self, ref: ConversationRef) -> LiveStatus:
        return LiveStatus(active=False, streams=self.feeds.readers(ref))

    async def session_bytes(self, ref: ConversationRef) -> bytes | None:
        return self.sessions.get(ref)

    async def purge_snapshots(self, ref: ConversationRef, run_id: str) -> int | None:
        self.purges.append((ref, run_id))
        return self.purge_result

    async def look(self, organization_id: str) -> list[HostStatus]:
        self.looks.append(organization_id)
        return self.hosts

    def drain(self) -> None:
        self.draining = True
        self.feeds.wake_all()


class Owner:
    """Runs turns of one conversation, step by step. Events are committed, and told to the feed by `tell`."""

    def __init__(self, store: MemoryStore, feed: Feed, lease: Lease, last_seq: int) -> None:
        self.store = store
        self.feed = feed
        self.lease = lease
        self.last_seq = last_seq
        self.untold: list[Event] = []
        self.text: LiveText | None = None
        self.run_id = ""

    @classmethod
    async def of(cls, store: MemoryStore, feeds: Feeds, ref: ConversationRef) -> Owner:
        await store.register_host(HOST, name=HOST, link_url=None, version="0", ttl_seconds=1e9)
        assert await store.renew_host(HOST, ttl_seconds=1e9, state=HostState.ACTIVE)
        activation = await store.activate(ref, HOST)
        assert isinstance(activation, Activation)
        feed = feeds.hold(ref)
        feed.know(activation.conversation.last_seq)
        return cls(store, feed, activation.lease, activation.conversation.last_seq)

    async def begin(self, turn: Turn, attempt: int = 1) -> None:
        self.run_id = new_id()
        restarts = (events.restart(turn.message_id, attempt, "retry"),) if attempt > 1 else ()
        written = await self.store.start_run(
            self.lease, StartRun(self.run_id, (turn.turn_id,), attempt, None, None, restarts)
        )
        assert written is not None
        self.untold += written
        self.tell()
        self.text = LiveText(turn.message_id, attempt, self.last_seq)
        self.feed.begin_text(self.text)

    def say(self, text: str) -> None:
        self.feed.append_text(text)

    def status(self, status: str) -> None:
        message_id = self.text.message_id if self.text else ""
        self.feed.transient(EventType.STATUS, events.status(status, None, message_id, NOW_MS))

    async def commit_question(self, turn: Turn, question_id: str) -> None:
        attempt, offset = self._position()
        data = events.question(question_id, "which?", None, turn.message_id)
        event = await self.store.append_event(
            self.lease, NewEvent(EventType.QUESTION, data, turn.turn_id, None, attempt, offset)
        )
        assert event is not None
        self.untold.append(event)

    async def commit_end(self, turn: Turn, kind: EventType = EventType.COMPLETE) -> None:
        """The running turn's terminal event."""
        text = self.text.whole() if self.text else ""
        await self._finish(turn, kind, self.run_id, terminal(turn, kind, text), (None, None))

    async def commit_queued_end(self, turn: Turn) -> None:
        """The terminal event of a turn that never ran, while another may."""
        await self._finish(turn, EventType.CANCELLED, None, terminal(turn, EventType.CANCELLED, ""), self._position())

    async def requeue(self, turn: Turn) -> None:
        turns = await self.store.requeue_run(self.lease, RequeueRun(self.run_id, (turn.turn_id,), failed=True))
        assert turns
        self.text = None
        self.feed.end_text()

    def tell(self) -> None:
        """Tell the feed what was committed."""
        for event in self.untold:
            self.feed.durable(event)
            self.last_seq = event.seq
            if self.text is not None and event.attempt is None and event.run_id == self.run_id:
                self.text = None
                self.feed.end_text()
        self.untold.clear()

    async def end(self, turn: Turn, kind: EventType = EventType.COMPLETE) -> None:
        await self.commit_end(turn, kind)
        self.tell()

    async def close(self) -> None:
        event = await self.store.close_conversation(self.lease, "deleted")
        assert event is not None
        self.untold.append(event)
        self.tell()

    def _position(self) -> tuple[int | None, int | None]:
        return (None, None) if self.text is None else (self.text.attempt, self.text.length)

    async def _finish(
        self, turn: Turn, kind: EventType, run_id: str | None, data: Data, position: tuple[int | None, int | None]
    ) -> None:
        status = {EventType.COMPLETE: TurnStatus.COMPLETED, EventType.AGENT_ERROR: TurnStatus.FAILED}
        run_status = {EventType.COMPLETE: RunStatus.COMPLETED, EventType.AGENT_ERROR: RunStatus.FAILED}
        written = await self.store.finish_run(
            self.lease,
            FinishRun(
                run_id=run_id,
                status=run_status.get(kind, RunStatus.CANCELLED),
                turn_status=status.get(kind, TurnStatus.CANCELLED),
                ends=(TurnEnd(turn.turn_id, kind, data),),
                attempt=position[0],
                text_offset=position[1],
            ),
        )
        assert written is not None
        self.untold += written


def terminal(turn: Turn, kind: EventType, text: str) -> Data:
    processed = [turn.message_id]
    if kind is EventType.COMPLETE:
        return events.complete(turn.message_id, processed, text, None, NOW_MS)
    if kind is EventType.AGENT_ERROR:
        return events.agent_error(turn.message_id, processed, "WORKER_CRASHED", "it crashed", None, NOW_MS)
    return events.cancelled(turn.message_id, processed, text, NOW_MS)

"""Hosts whose trust a test moves by hand, over real Postgres and a Bot API on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from lobu_actors.contract import events
from lobu_actors.contract.errors import TurnError, turn_error_text
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import HostState, RunStatus, TurnStatus
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Activation, Agent, FinishRun, NewTurn, StartRun, Turn, TurnEnd, Verdict
from supervisor.singletons.inbox import Inbox
from supervisor.singletons.singleton import Body, Singleton
from supervisor.singletons.telegram.bot import Bot
from supervisor.singletons.telegram.poller import TelegramPoller, poller_name
from tests.fakes.gateway import FakeGateway
from tests.fakes.telegram import TOKEN, FakeTelegram

ORGANIZATION = "acme"
CHAT = 42
FOREVER = 1e6


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    deadline = trio.current_time() + seconds
    while not condition():
        assert trio.current_time() < deadline, f"not within {seconds:g} s: {what}"
        await trio.sleep(0.01)


async def until_asked(question: Callable[[], Awaitable[object]], what: str, seconds: float = 20.0) -> None:
    """As `until`, of what has to be asked for."""
    deadline = trio.current_time() + seconds
    while not await question():
        assert trio.current_time() < deadline, f"not within {seconds:g} s: {what}"
        await trio.sleep(0.02)


@attrs.define
class Trust:
    """A host as its singletons see it."""

    host_id: str
    state: HostState = HostState.ACTIVE
    trusted_until: float = attrs.field(factory=lambda: trio.current_time() + FOREVER)


@attrs.define
class World:
    store: PostgresStore
    telegram: FakeTelegram
    nursery: trio.Nursery
    gateway: FakeGateway = attrs.field(factory=FakeGateway)
    verdict: Verdict | None = None
    log: list[str] = attrs.field(factory=list)

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.store, self.gateway, self._judge, max_owed_turns=3)

    async def _judge(self, turn: NewTurn, user_id: str) -> Verdict | None:
        return self.verdict

    async def host(self, host_id: str) -> Trust:
        await self.store.register_host(host_id, name=host_id, link_url=None, version="1", ttl_seconds=600)
        return Trust(host_id)

    async def run(self, singleton: Singleton) -> ChildContext:
        """Until its context's `stopping` is set, or the test ends."""
        context = ChildContext(singleton.name.key)
        self.nursery.start_soon(singleton.run, context)
        return context

    def bot(self, **changes: Any) -> Bot:
        bot = Bot(TOKEN, "TG", "echo", frozenset({CHAT, -100}), self.telegram.url, 5)
        return attrs.evolve(bot, **changes)

    def poller(self, trust: Trust, **changes: Any) -> Singleton:
        bot = self.bot(**changes)
        poller = TelegramPoller(ORGANIZATION, bot, self.store, self.inbox, max_message_bytes=3000, kept_seconds=3600.0)
        return Singleton(poller_name(ORGANIZATION, bot), self.store, trust, poller.run)

    def singleton(self, trust: Trust, body: Body) -> Singleton:
        return Singleton(poller_name(ORGANIZATION, self.bot()), self.store, trust, body)

    # --- the owner of conversations, by hand

    async def end(self, turn: Turn, text: str, event_type: EventType = EventType.COMPLETE) -> None:
        activation = await self.store.activate(turn.ref, "owner")
        assert isinstance(activation, Activation)
        run_id = new_id()
        start = StartRun(run_id, (turn.turn_id,), 1, None, None)
        assert await self.store.start_run(activation.lease, start) is not None
        status, turn_status = RunStatus.COMPLETED, TurnStatus.COMPLETED
        data = events.complete(turn.message_id, [turn.message_id], text, None, 1)
        if event_type is EventType.AGENT_ERROR:
            status, turn_status = RunStatus.FAILED, TurnStatus.FAILED
            sentence = turn_error_text(TurnError.NO_PROGRESS)
            data = events.agent_error(turn.message_id, [turn.message_id], "NO_PROGRESS", sentence, None, 1)
        end = FinishRun(run_id, status, turn_status, (TurnEnd(turn.turn_id, event_type, data),))
        assert await self.store.finish_run(activation.lease, end) is not None

    async def answer_at_once(self, turn: Turn) -> None:
        await self.end(turn, f"you said {turn.content}")

    async def turns(self) -> list[tuple[str, str]]:
        """Message id and content of every turn, as accepted."""
        found = await self.store.pool.fetch(b"SELECT message_id, content FROM turn ORDER BY accepted_at", write=False)
        return [(row[0], row[1]) for row in found]

    async def deliveries(self) -> list[tuple[str, str, str | None]]:
        found = await self.store.pool.fetch(
            b"SELECT delivery_id, status, error FROM platform_delivery ORDER BY created_at", write=False
        )
        return [(row[0], row[1], row[2]) for row in found]

    def ref(self, chat: int = CHAT) -> ConversationRef:
        return ConversationRef(ORGANIZATION, "echo", f"echo_telegram:{chat}_{ORGANIZATION}_{self.bot().id}")


@asynccontextmanager
async def a_world(store: PostgresStore) -> AsyncIterator[World]:
    await store.ensure_organization(ORGANIZATION)
    await store.apply_agents(ORGANIZATION, [Agent(ORGANIZATION, "echo", "echo", is_default=True)])
    async with FakeTelegram().serving() as telegram, trio.open_nursery() as nursery:
        world = World(store, telegram, nursery)
        await world.host("owner")
        yield world
        nursery.cancel_scope.cancel()
    assert telegram.overlaps == []


@pytest.fixture
async def world(store: PostgresStore) -> AsyncIterator[World]:
    async with a_world(store) as world:
        yield world

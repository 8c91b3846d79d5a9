"""A small world with all that a conversation can go through, under ids that a test can name, and its audit."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import pytest

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.postgres.audit import Audit, Finding
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import (
    Accepted,
    Activation,
    FinishRun,
    Lease,
    NewTurn,
    RequeueRun,
    Segment,
    StartRun,
    TurnEnd,
)

ENDS = {
    EventType.COMPLETE: (RunStatus.COMPLETED, TurnStatus.COMPLETED),
    EventType.AGENT_ERROR: (RunStatus.FAILED, TurnStatus.FAILED),
    EventType.CANCELLED: (RunStatus.CANCELLED, TurnStatus.CANCELLED),
}


class Actor:
    """What the owner of one conversation does."""

    def __init__(self, store: PostgresStore, name: str) -> None:
        self.store = store
        self.ref = ConversationRef("acme", "echo", name)
        self.lease: Lease
        self.session = b""

    async def take(self, host_id: str = "h1") -> None:
        activation = await self.store.activate(self.ref, host_id)
        assert isinstance(activation, Activation)
        self.lease = activation.lease

    async def accept(self, name: str) -> None:
        accepted = await self.store.accept_turn(NewTurn(self.ref, f"t{name}", f"m{name}", "hello"), max_owed=100)
        assert isinstance(accepted, Accepted)
        assert accepted.created

    async def start(self, name: str, *, run: str | None = None, attempt: int = 1) -> None:
        restarts = (events.restart(f"m{name}", attempt, "retry"),) if attempt > 1 else ()
        start = StartRun(f"r{run or name}", (f"t{name}",), attempt, None, None, restarts)
        assert await self.store.start_run(self.lease, start) is not None

    async def end(
        self, name: str, kind: EventType = EventType.COMPLETE, *, run: str | None = "", grow: bytes = b""
    ) -> None:
        """`run` None: it never ran. `grow`: what its run wrote behind the session file's end."""
        status, turn_status = ENDS[kind]
        segment = None
        if grow:
            base, self.session = self.session, self.session + grow
            digest = hashlib.sha256(self.session).hexdigest()
            segment = Segment(1, len(base), len(self.session), digest, grow)
        ends = (TurnEnd(f"t{name}", kind, {"messageId": f"m{name}"}),)
        run_id = None if run is None else f"r{run or name}"
        finish = FinishRun(run_id, status, turn_status, ends, segment=segment)
        assert await self.store.finish_run(self.lease, finish)

    async def reply(self, name: str, grow: bytes = b"") -> None:
        await self.accept(name)
        await self.start(name)
        await self.end(name, grow=grow)


@pytest.fixture
async def world(store: PostgresStore) -> PostgresStore:
    """c1: every way to end. c2: taken over. c3: at work. c4: closed. No promise is broken."""
    await store.ensure_organization("acme")
    for host in ("h1", "h2"):
        await store.register_host(host, name=host, link_url=None, version="1", ttl_seconds=600)
    one, two, three, four = (Actor(store, name) for name in ("c1", "c2", "c3", "c4"))
    for actor in (one, two, three, four):
        await store.open_conversation(actor.ref, "ann")
        await actor.take()
    await one.reply("1", b"one\n")
    await one.reply("2", b"two\n")
    await one.accept("3")
    await one.start("3")
    await one.end("3", EventType.AGENT_ERROR)
    await one.accept("4")
    await one.end("4", EventType.CANCELLED, run=None)
    await one.accept("5")
    await one.start("5", run="5a")
    assert await store.requeue_run(one.lease, RequeueRun("r5a", ("t5",), failed=True))
    await one.start("5", run="5b", attempt=2)
    await one.end("5", run="5b", grow=b"five\n")
    await two.reply("21", b"first\n")
    await store.release(two.lease)
    await two.take("h2")
    await two.reply("22", b"second\n")
    await three.accept("31")
    await three.start("31")
    question = NewQuestion("q1", "w1", "r31", "t31", "sure?", None, {"questionId": "q1"}, 1, 0)
    assert await store.ask_question(three.lease, question)
    await three.accept("32")
    await four.reply("41", b"gone\n")
    await store.mark_closing(four.ref)
    assert await store.close_conversation(four.lease, "deleted")
    return store


Audited = Callable[..., Awaitable[list[Finding]]]


@pytest.fixture
def audited(database_url: str) -> Audited:
    """All that an audit finds."""

    async def audit(*, batch_rows: int = 5000) -> list[Finding]:
        pool = Pool(database_url, size=1)
        try:
            verdicts = await Audit(pool, batch_rows=batch_rows).run()
        finally:
            pool.close()
        return [finding for verdict in verdicts for finding in verdict.findings]

    return audit

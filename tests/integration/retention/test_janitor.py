"""The janitor over a real database: what is old goes while work goes on, and every invariant holds afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import pytest
import trio

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.postgres.audit import Audit
from lobu_actors.store.records import (
    Activation,
    Compacted,
    FinishRun,
    Lease,
    NewTurn,
    Segment,
    StartRun,
    Trimmable,
    Trimmed,
    TurnEnd,
)
from supervisor.upkeep.janitor import Janitor
from tests.conftest import admin

DAY = 86_400.0
AGEING = """
UPDATE conversation_event SET created_at = created_at - interval '40 days' WHERE {which};
UPDATE turn SET accepted_at = accepted_at - interval '40 days', ended_at = ended_at - interval '40 days' WHERE {which};
UPDATE run SET started_at = started_at - interval '40 days', ended_at = ended_at - interval '40 days' WHERE {which};
UPDATE transcript_segment SET created_at = created_at - interval '40 days' WHERE {which};
"""


class Talk:
    """One conversation whose session file grows with each reply."""

    def __init__(self, store: PostgresStore, name: str) -> None:
        self.store = store
        self.ref = ConversationRef("acme", "echo", name)
        self.lease: Lease
        self.session = b""

    async def open(self) -> Talk:
        await self.store.open_conversation(self.ref, "ann")
        activation = await self.store.activate(self.ref, "h1")
        assert isinstance(activation, Activation)
        self.lease = activation.lease
        return self

    async def replies(self, number: int) -> None:
        for _ in range(number):
            turn = NewTurn(self.ref, new_id(), new_id(), "hello")
            await self.store.accept_turn(turn, max_owed=10)
            run_id = new_id()
            assert await self.store.start_run(self.lease, StartRun(run_id, (turn.turn_id,), 1, None, None)) is not None
            line = b"%d\n" % len(self.session)
            base, self.session = len(self.session), self.session + line
            digest = hashlib.sha256(self.session).hexdigest()
            finish = FinishRun(
                run_id,
                RunStatus.COMPLETED,
                TurnStatus.COMPLETED,
                (TurnEnd(turn.turn_id, EventType.COMPLETE, {"messageId": turn.message_id}),),
                segment=Segment(1, base, len(self.session), digest, line),
            )
            assert await self.store.finish_run(self.lease, finish)


@pytest.fixture
async def talks(store: PostgresStore) -> Callable[[str], Awaitable[Talk]]:
    await store.ensure_organization("acme")
    await store.register_host("h1", name="h1", link_url=None, version="1", ttl_seconds=600)

    async def talk(name: str) -> Talk:
        return await Talk(store, name).open()

    return talk


def janitor(store: object, **options: int) -> Janitor:
    settings = {"max_segments": 4, "page": 3, "batch": 2, **options}
    ages = {"retention_seconds": 30 * DAY, "host_retention_seconds": 7 * DAY, "interval_seconds": DAY}
    return Janitor(store, **ages, **settings)  # type: ignore[arg-type]


def age(url: str, which: str) -> None:
    admin(url, AGEING.format(which=which))


async def broken(url: str) -> list[object]:
    pool = Pool(url, size=1)
    try:
        return [finding for verdict in await Audit(pool).run() for finding in verdict.findings]
    finally:
        pool.close()


def count(url: str, table: str) -> int:
    [(number,)] = admin(url, f"SELECT count(*) FROM {table}")
    assert isinstance(number, int)
    return number


async def test_what_is_old_goes_in_all_conversations(talks, store, database_url) -> None:
    for number in range(5):
        await (await talks(f"c{number}")).replies(3)
    age(database_url, "conversation_id < 'c3'")
    done = await janitor(store).walk(trio.Event())
    assert (done["turns"], done["events"]) == (9, 9)
    assert (count(database_url, "turn"), count(database_url, "conversation_event")) == (6, 6)
    assert admin(database_url, "SELECT trimmed_to_seq FROM conversation ORDER BY conversation_id") == [
        (3,), (3,), (3,), (0,), (0,),
    ]  # fmt: skip
    assert await broken(database_url) == []
    assert not await janitor(store).walk(trio.Event())


async def test_only_the_old_part_of_a_log_goes(talks, store, database_url) -> None:
    talk = await talks("c1")
    await talk.replies(5)
    age(database_url, "true")
    await talk.replies(2)
    await janitor(store).walk(trio.Event())
    assert [event.seq for event in await store.read_events(talk.ref, 0, limit=10)] == [6, 7]
    assert await store.read_snapshot(talk.ref) == talk.session
    assert await broken(database_url) == []


async def test_a_young_event_keeps_what_is_behind_it(talks, store, database_url) -> None:
    """Clocks may have stood wrong: no hole is made for an event that looks old behind a young one."""
    talk = await talks("c1")
    await talk.replies(4)
    age(database_url, "true")
    for table in ("conversation_event", "transcript_segment"):
        admin(database_url, f"UPDATE {table} SET created_at = now() WHERE seq = 2")
    await janitor(store).walk(trio.Event())
    assert [event.seq for event in await store.read_events(talk.ref, 0, limit=10)] == [2, 3, 4]
    assert await broken(database_url) == []


async def test_files_go_with_their_turn(talks, store, database_url) -> None:
    talk = await talks("c1")
    await talk.replies(2)
    age(database_url, "true")
    await talk.replies(1)
    admin(
        database_url,
        "INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, "
        "size, sha256) SELECT organization_id, 'f-' || turn_id, agent_id, conversation_id, turn_id, 'in', 'n', 't', 1, "
        "'0' FROM turn; INSERT INTO file_chunk SELECT organization_id, file_id, 0, 'x' FROM file",
    )
    done = await janitor(store).walk(trio.Event())
    assert done["files"] == 2
    assert count(database_url, "file WHERE turn_id IS NOT NULL") == 1
    assert count(database_url, "file WHERE expires_at <= clock_timestamp()") == 2


async def test_long_snapshots_are_compacted_and_read_the_same(talks, store, database_url) -> None:
    long, short = await talks("long"), await talks("short")
    await long.replies(7)
    await short.replies(4)
    done = await janitor(store).walk(trio.Event())
    assert done == {"compacted": 6}
    assert count(database_url, "transcript_segment") == 5
    assert await store.read_snapshot(long.ref) == long.session
    await long.replies(2)
    assert await store.read_snapshot(long.ref) == long.session
    assert await broken(database_url) == []


async def test_a_corrupt_snapshot_is_left_for_the_audit(talks, store, database_url) -> None:
    talk = await talks("c1")
    await talk.replies(6)
    admin(database_url, "UPDATE transcript_segment SET sha256 = repeat('0', 64)")
    assert not await janitor(store).walk(trio.Event())
    assert count(database_url, "transcript_segment") == 6


async def test_compaction_does_not_meet_the_owner(talks, store, database_url) -> None:
    """The owner goes on writing suffixes while the janitor makes the snapshot whole, again and again."""
    talk = await talks("c1")
    await talk.replies(1)

    async def compact_until(done: trio.Event) -> None:
        while not done.is_set():
            assert not (await store.compact(talk.ref)).corrupt
            await store.trim(talk.ref, older_than_seconds=0, limit=3)

    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compact_until, done)
        await talk.replies(150)
        done.set()
    assert await store.read_snapshot(talk.ref) == talk.session
    assert await broken(database_url) == []


async def test_two_janitors_at_once_do_the_work_of_one(talks, store, database_url) -> None:
    for number in range(6):
        await (await talks(f"c{number}")).replies(6)
    age(database_url, "true")
    totals = []

    async def walk() -> None:
        totals.append(await janitor(store, page=2, batch=1).walk(trio.Event()))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(walk)
    totals.append(await janitor(store).walk(trio.Event()))
    assert sum(total["events"] for total in totals) == 36
    assert sum(total["turns"] for total in totals) == 36
    assert await broken(database_url) == []


async def test_a_conversation_that_is_written_to_is_skipped(talks, store, database_url) -> None:
    talk = await talks("c1")
    await talk.replies(2)
    age(database_url, "true")
    pool = Pool(database_url, size=1)
    async with pool.connection() as connection:
        for statement in (b"BEGIN", b"UPDATE conversation SET model = 'm'"):
            await connection.fetch(statement, None, timeout_seconds=5, write=True)
        assert not (await janitor(store).walk(trio.Event()))["events"]
        await connection.fetch(b"ROLLBACK", None, timeout_seconds=5, write=True)
    assert (await janitor(store).walk(trio.Event()))["events"] == 2


class Reluctant:
    """A retention store whose trim is too slow for more than `most` events, and which may be away."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.left = 20
        self.limits: list[int] = []

    async def find_trimmable(self, after: ConversationRef | None, **options: object) -> list[Trimmable]:
        return [Trimmable(ConversationRef("acme", "echo", "c1"), self.left > 0, 0)] if after is None else []

    async def trim(self, ref: ConversationRef, *, older_than_seconds: float, limit: int) -> Trimmed:
        self.limits.append(limit)
        if limit > self.most:
            raise StoreUnavailable("no answer in time")
        events = min(limit, self.left)
        self.left -= events
        return Trimmed(events, events, 0, 0, 0, 0, more=events == limit)

    async def compact(self, ref: ConversationRef) -> Compacted:
        raise AssertionError("nothing to compact")


async def test_hosts_that_are_gone_for_a_week_are_forgotten(talks, store, database_url) -> None:
    await talks("here")
    for number in range(5):
        await store.register_host(f"old{number}", name="n", link_url=None, version="1", ttl_seconds=-8 * DAY)
    await store.register_host("new", name="n", link_url=None, version="1", ttl_seconds=-6 * DAY)
    context = ChildContext("janitor")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(janitor(store).run, context)
        with trio.fail_after(20):
            while len(await store.list_hosts()) > 2:  # noqa: ASYNC110 - a janitor tells nobody
                await trio.sleep(0.01)
        context.stopping.set()
    assert sorted(host.host_id for host in await store.list_hosts()) == ["h1", "new"]


async def test_a_batch_that_takes_too_long_gets_smaller() -> None:
    store = Reluctant(most=8)
    done = await janitor(store, batch=64).walk(trio.Event())
    assert done["events"] == 20
    assert store.limits == [64, 8, 8, 8]


async def test_a_store_that_is_away_ends_the_walk() -> None:
    store = Reluctant(most=0)
    with pytest.raises(StoreUnavailable):
        await janitor(store, batch=64).walk(trio.Event())
    assert store.limits == [64, 8, 1]


async def test_it_stops_when_it_is_told_to() -> None:
    store = Reluctant(most=100)
    context = ChildContext("janitor")
    context.stopping.set()
    with trio.fail_after(5):
        await janitor(store).run(context)
    assert context.is_started
    assert store.left == 20

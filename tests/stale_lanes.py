"""Lanes of `tests.stale_writers`: one lease each, which goes to and fro between two hosts, race after race.

A lane keeps what its legitimate owners were told that they wrote. At the end the database holds that and nothing else.
"""

from __future__ import annotations

import abc
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef, new_id
from lobu_actors.contract.states import DeliveryStatus, HostState
from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Accepted, Activation, Event, Lease, NewEvent, NewTurn, RequeueRun, Turn
from lobu_actors.store.singleton_records import SingletonLease, SingletonName
from tests.stale_meeting import WAYS, Gate, Meeting
from tests.stale_writes import (
    KINDS,
    SINGLETON_KINDS,
    WATCHERS,
    Kind,
    Scene,
    SingletonKind,
    SingletonScene,
    end_of,
    start_of,
    whole,
)

ALIVE_SECONDS = 3600.0
QUESTION = EventType.QUESTION


@attrs.define
class Tally:
    refused: Counter[str] = attrs.field(factory=Counter)  # stale writes, by name
    ways: Counter[str] = attrs.field(factory=Counter)  # the same, by how the two met
    in_time: int = 0
    accepted: int = 0
    faults: list[str] = attrs.field(factory=list)

    @property
    def races(self) -> int:
        return self.refused.total() + self.accepted


class Lane(abc.ABC):
    """Two hosts, each with sessions of its own, and the gate of the lane's lease."""

    kind: str
    key: str

    def __init__(self, url: str, name: str, tally: Tally, seed: int) -> None:
        self.organization_id = name
        self.tally = tally
        self.random = random.Random(f"{seed} {name}")
        self.hosts = (f"{name}-a", f"{name}-b")
        self.stores = {
            host: PostgresStore.connect(url, pool_size=3, call_timeout_seconds=30, application_name=host)
            for host in self.hosts
        }
        self._url = url

    @asynccontextmanager
    async def opened(self, watcher: Pool) -> AsyncIterator[None]:
        try:
            for host in self.hosts:
                await self.register(host)
            await self.begin()
            async with watcher.connection() as held:
                self.gate = Gate(watcher, held, self.organization_id, self.kind, self.key)
                yield
        finally:
            for store in self.stores.values():
                store.close()

    async def go(self, enough: Callable[[], bool]) -> None:
        turns = zip(itertools.cycle(self.hosts), itertools.count())
        for way in itertools.cycle(WAYS):
            for owner, number in itertools.islice(turns, self.writes):
                if enough():
                    return
                successor = self.hosts[1 - self.hosts.index(owner)]
                await self.race(way, number % self.writes, owner, successor)
                await self.register(owner)  # as one that has just started, which may take over at once

    async def register(self, host: str) -> None:
        store = self.stores[host]
        await store.register_host(host, name=host, link_url=None, version="1", ttl_seconds=ALIVE_SECONDS)

    async def pause(self, owner: str) -> None:
        """As the database sees it: the owner does not renew, and its time is over."""
        await self.stores[owner].renew_host(owner, ttl_seconds=-1, state=HostState.ACTIVE)

    def judge(self, name: str, way: str, landed: bool, in_time: bool) -> None:
        if not landed:
            self.tally.refused[name] += 1
            self.tally.ways[way] += 1
        elif way == "moment" and in_time:
            self.tally.in_time += 1
        else:
            self.tally.accepted += 1
            self.tally.faults.append(f"{self.organization_id}: {name} was accepted, {way}")

    async def rows(self, statement: str, **words: object) -> list[Any]:
        words = {"organization_id": self.organization_id, "kind": self.kind, "key": self.key, **words}
        return await self.stores[self.hosts[0]].pool.fetch(statement.encode(), words, write=False)

    async def lease_row(self) -> tuple[str | None, int]:
        [row] = await self.rows(
            "SELECT host_id, epoch FROM actor_lease"
            " WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s"
        )
        return row[0], row[1]

    @property
    @abc.abstractmethod
    def writes(self) -> int: ...

    @abc.abstractmethod
    async def begin(self) -> None: ...

    @abc.abstractmethod
    async def race(self, way: str, number: int, owner: str, successor: str) -> None: ...

    @abc.abstractmethod
    async def check_that_every_write_lands(self) -> None:
        """While the lease is held: else that they are refused later would say nothing."""

    @abc.abstractmethod
    async def faults(self) -> list[str]:
        """What is there and was not written by an owner, or the other way round."""


class ConversationLane(Lane):
    kind = "conversation"
    writes = len(KINDS)

    def __init__(self, url: str, number: int, tally: Tally, seed: int) -> None:
        super().__init__(url, f"lane{number}", tally, seed)
        self.ref = ConversationRef(self.organization_id, "echo", f"echo_ann_{self.organization_id}")
        self.key = self.ref.conversation_id
        self.written: list[tuple[Event, int]] = []  # with the writer's epoch
        self.runs: set[str] = set()
        self.snapshot: bytes | None = None

    async def begin(self) -> None:
        store = self.stores[self.hosts[0]]
        await store.ensure_organization(self.organization_id)
        await store.open_conversation(self.ref, "ann")
        await self._activate(self.hosts[0])

    async def check_that_every_write_lands(self) -> None:
        for kind in KINDS:
            scene = await self._scene(kind, self.hosts[0])
            result = await kind.write(self.stores[self.hosts[0]], scene)
            assert kind.landed(result) or kind.name == "release", f"{kind.name} was refused to an owner"
            self._note(result, scene.lease)
            await self._work(await self._activate(self.hosts[0]))

    async def race(self, way: str, number: int, owner: str, successor: str) -> None:
        kind = KINDS[number]
        scene = await self._scene(kind, owner)
        await self.pause(owner)
        meeting = Meeting[Activation](
            lambda: self._activate(successor), lambda: kind.write(self.stores[owner], scene), self._work
        )
        await meeting.hold(way, self.gate, owner, successor, self.random)
        landed = kind.landed(meeting.result)
        found = kind.seen(meeting.taken, scene) and all(
            event.seq <= meeting.taken.conversation.last_seq for event in _events(meeting.result)
        )
        self.judge(kind.name, way, landed, found)
        if landed:
            self._note(meeting.result, scene.lease)
        lease = meeting.taken.lease
        if await self.lease_row() != (successor, lease.epoch):
            self.tally.faults.append(f"{self.organization_id}: {kind.name} took the lease from its owner, {way}")
        if kind.leaves_a_turn:
            await self._work(await self._activate(successor))

    async def faults(self) -> list[str]:
        log = await self.rows(
            "SELECT seq, type, data, turn_id, epoch FROM conversation_event"
            " WHERE organization_id = %(organization_id)s AND conversation_id = %(key)s ORDER BY seq"
        )
        written = sorted((e.seq, e.type.value, e.data, e.turn_id, epoch) for e, epoch in self.written)  # by seq
        found = []
        if [tuple(row) for row in log] != written:
            differing = next(pair for pair in itertools.zip_longest(map(tuple, log), written) if pair[0] != pair[1])
            found.append(f"{self.organization_id}: the log has {differing[0]}, its owner wrote {differing[1]}")
        if [row[0] for row in log] != list(range(1, len(log) + 1)):
            found.append(f"{self.organization_id}: the log is not numbered without a gap")
        epochs = [row[4] for row in log]
        if epochs != sorted(epochs):
            found.append(f"{self.organization_id}: an event of an old epoch stands behind one of a newer")
        runs = await self.rows("SELECT run_id FROM run WHERE organization_id = %(organization_id)s")
        found += [f"{self.organization_id}: a run of nobody, {run}" for (run,) in runs if run not in self.runs]
        if await self.stores[self.hosts[0]].read_snapshot(self.ref) != self.snapshot:
            found.append(f"{self.organization_id}: the session is not what its owner stored")
        return found

    async def _activate(self, host: str) -> Activation:
        taken = await self.stores[host].activate(self.ref, host)
        assert isinstance(taken, Activation), taken
        return taken

    async def _scene(self, kind: Kind, owner: str) -> Scene:
        """The owner takes the lease anew: each race has an epoch of its own. Brings about what is needed."""
        store, activation = self.stores[owner], await self._activate(owner)
        lease, generation = activation.lease, activation.conversation.generation
        if kind.needs == "empty":
            return Scene(lease, generation)
        await self._reply(lease, generation, await self._accept(store))  # so that there is a snapshot
        first = await self._accept(store)
        if kind.needs == "queued":
            return Scene(lease, generation, queued=first)
        second = await self._accept(store)
        return Scene(lease, generation, first, await self._start(store, lease, first), second)

    async def _work(self, activation: Activation) -> None:
        """What an owner does first: settle what it found. Afterwards nothing is owed and the conversation is open."""
        lease, conversation = activation.lease, activation.conversation
        store, owed = self.stores[lease.host_id], list(activation.owed)
        if activation.live_run is not None:
            run = activation.live_run
            assert await store.requeue_run(lease, RequeueRun(run.run_id, run.turn_ids, failed=False)) is not None
            owed = await store.load_owed(lease, limit=10) or []
        await self._learn_session(store, activation)
        for turn in owed:
            assert isinstance(turn, Turn)
            await self._reply(lease, conversation.generation, turn)
        if conversation.closing and not conversation.closed:
            closed = await store.close_conversation(lease, "deleted")
            assert closed is not None
            self._note(closed, lease)
        if conversation.closing or conversation.closed:
            await store.open_conversation(self.ref, "ann")
            self.snapshot = None

    async def _learn_session(self, store: PostgresStore, activation: Activation) -> None:
        """Of writes that were in time, the successor's view is the legitimate one."""
        self.snapshot = None if activation.snapshot is None else await store.read_snapshot(self.ref)

    async def _reply(self, lease: Lease, generation: int, turn: Turn) -> None:
        store, reply = self.stores[lease.host_id], new_id()
        run_id = await self._start(store, lease, turn)
        event = await store.append_event(lease, NewEvent(QUESTION, {"questionId": reply}, turn_id=turn.turn_id))
        assert event is not None
        ended = await store.finish_run(lease, end_of(turn, run_id, whole(reply.encode(), generation)))
        assert ended is not None
        self._note([event, *ended], lease)
        self.snapshot = reply.encode()

    async def _accept(self, store: PostgresStore) -> Turn:
        accepted = await store.accept_turn(NewTurn(self.ref, new_id(), new_id(), "hello"), max_owed=10)
        assert isinstance(accepted, Accepted), accepted
        return accepted.turn

    async def _start(self, store: PostgresStore, lease: Lease, turn: Turn) -> str:
        start = start_of(turn)
        written = await store.start_run(lease, start)
        assert written is not None, "the owner could not begin a run"
        self._note(written, lease)
        return start.run_id

    def _note(self, result: object, lease: Lease) -> None:
        if isinstance(result, str):
            self.runs.add(result)
        for event in _events(result):
            self.written.append((event, lease.epoch))
            if event.run_id is not None:
                self.runs.add(event.run_id)


def _events(result: object) -> list[Event]:
    every = result if isinstance(result, list) else [result]
    return [one for one in every if isinstance(one, Event)]


class SingletonLane(Lane):
    kind = "poller"
    key = "telegram:1"
    writes = len(SINGLETON_KINDS)

    def __init__(self, url: str, tally: Tally, seed: int) -> None:
        super().__init__(url, "singletons", tally, seed)
        self.name = SingletonName(self.organization_id, self.kind, self.key)
        self.ref = ConversationRef(self.organization_id, "echo", "echo_ann_telegram")
        self._times = (datetime.now(UTC) + timedelta(days=days) for days in itertools.count(1))

    async def begin(self) -> None:
        store = self.stores[self.hosts[0]]
        await store.ensure_organization(self.organization_id)
        await store.open_conversation(self.ref, "ann")
        await self._acquire(self.hosts[0])

    async def check_that_every_write_lands(self) -> None:
        for kind in SINGLETON_KINDS:
            scene = await self._scene(self.hosts[0])
            before = await self._state()
            result = await kind.write(self.stores[self.hosts[0]], scene)
            assert kind.landed(result) or kind.name == "release_singleton", f"{kind.name} was refused to an owner"
            assert await self._state() != before, f"{kind.name} changes nothing here"

    async def race(self, way: str, number: int, owner: str, successor: str) -> None:
        """A write that is in time is told from a stale one by the state that the successor finds."""
        kind: SingletonKind = SINGLETON_KINDS[number]
        scene = await self._scene(owner)
        await self.pause(owner)
        found: list[Any] = []

        async def look(lease: SingletonLease) -> None:
            found.append(await self._state())

        meeting = Meeting[SingletonLease](
            lambda: self._acquire(successor), lambda: kind.write(self.stores[owner], scene), look
        )
        way = "behind" if way == "moment" else way  # there is no telling what a successor found
        await meeting.hold(way, self.gate, owner, successor, self.random)
        self.judge(kind.name, way, kind.landed(meeting.result), in_time=False)
        if await self._state() != found[0] or found[0][0] != (successor, meeting.taken.epoch):
            self.tally.faults.append(f"{kind.name} changed what its successor had found, {way}")

    async def faults(self) -> list[str]:
        return []  # each race has looked

    async def _acquire(self, host: str) -> SingletonLease:
        lease = await self.stores[host].acquire_singleton(self.name, host)
        assert lease is not None
        return lease

    async def _scene(self, owner: str) -> SingletonScene:
        store, lease = self.stores[owner], await self._acquire(owner)
        await store.begin_watchers(lease, {})
        assert await store.begin_watchers(lease, WATCHERS) is not None
        scene = SingletonScene(lease, self.ref, next(self._times))
        assert await store.claim_firing(lease, "claimed", scene.claimed_at)
        await store.forget_deliveries(lease, older_than_seconds=-60, limit=1000)
        for delivery_id in (scene.owed_id, scene.ended_id):
            assert await store.owe_delivery(lease, scene.delivery(delivery_id))
        ended = DeliveryStatus.DELIVERED
        assert await store.record_delivery(lease, scene.ended_id, ended, parts_sent=1, error=None)
        return scene

    async def _state(self) -> tuple[Any, ...]:
        """All that the writes of a singleton can change."""
        watchers = await self.rows(
            "SELECT w::text FROM watcher_state w WHERE organization_id = %(organization_id)s ORDER BY watcher_id"
        )
        deliveries = await self.rows(
            "SELECT d::text FROM platform_delivery d WHERE organization_id = %(organization_id)s ORDER BY delivery_id"
        )
        return (await self.lease_row(), tuple(watchers), tuple(deliveries))

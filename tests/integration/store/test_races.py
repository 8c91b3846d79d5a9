"""What must hold when statements meet: takeovers, repeats, and a server that dies under load."""

import hashlib
from pathlib import Path

import attrs
import psycopg
import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import TERMINAL_EVENTS, EventType
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import HostState, RunStatus, TurnStatus
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.errors import StoreOutcomeUnknown, StoreUnavailable
from lobu_actors.store.migrate import migrate
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import (
    Accepted,
    Activation,
    FinishRun,
    NewEvent,
    NewTurn,
    Refused,
    RequeueRun,
    Segment,
    StartRun,
    TurnEnd,
)

ROUNDS = 300


def end(run_id, turn, event_type=EventType.COMPLETE, segment=None):
    failed = event_type is EventType.AGENT_ERROR
    data = {"errorCode": "HOST_LOST"} if failed else events.complete(turn.message_id, [], "done", None, 1)
    return FinishRun(
        run_id,
        RunStatus.FAILED if failed else RunStatus.COMPLETED,
        TurnStatus.FAILED if failed else TurnStatus.COMPLETED,
        (TurnEnd(turn.turn_id, event_type, data),),
        segment=segment,
    )


async def alive(store, host_id):
    await store.register_host(host_id, name=host_id, link_url=None, version="1", ttl_seconds=600)
    return host_id


async def begin(store, ref, lease):
    accepted = await store.accept_turn(NewTurn(ref, new_id(), new_id(), "hello"), max_owed=100)
    turn = accepted.turn
    run_id = new_id()
    assert await store.start_run(lease, StartRun(run_id, (turn.turn_id,), 1, None, None)) is not None
    return turn, run_id


async def log_of(store, ref):
    """The whole event log; fails when its numbers have a gap."""
    log = await store.read_events(ref, 1, limit=100_000)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    return log


@pytest.fixture
async def others(database_url):
    """Another process's store: what asks one store about one conversation goes one after the other."""
    others = PostgresStore.connect(database_url)
    yield others
    others.close()


async def test_the_owners_end_against_a_takeovers(store, others, make_scene):
    """One terminal event each, whoever wins, and the loser is told."""
    ref = (await make_scene(store)).ref
    hosts = [await alive(store, "h0"), await alive(store, "h1")]
    activation = await store.activate(ref, hosts[0])
    outcomes = []
    for number in range(ROUNDS):
        owner, successor = hosts[number % 2], hosts[(number + 1) % 2]
        lease = activation.lease
        turn, run_id = await begin(store, ref, lease)
        results = {}
        taken_over = trio.Event()
        if number > 0:  # once the end surely comes too late, which it is only now and then by itself
            taken_over.set()

        async def finish(lease=lease, run_id=run_id, turn=turn, results=results, begin=taken_over) -> None:
            await begin.wait()
            results["owner"] = await store.finish_run(lease, end(run_id, turn))

        async def take_over(successor=successor, results=results, turn=turn, owner=owner, done=taken_over) -> None:
            # The owner's host looks dead to the successor for a moment, as after a pause; its statement is on its way.
            await others.renew_host(owner, ttl_seconds=-1, state=HostState.ACTIVE)
            taken = await others.activate(ref, successor)
            assert isinstance(taken, Activation)
            done.set()
            results["successor"] = await others.finish_run(taken.lease, end(None, turn, EventType.AGENT_ERROR))

        async with trio.open_nursery() as nursery:
            for task in (finish, take_over) if number % 3 else (take_over, finish):
                nursery.start_soon(task)
        assert (results["owner"] is None) != (results["successor"] is None)
        outcomes.append("owner" if results["owner"] else "successor")
        await alive(store, owner)
        activation = await store.activate(ref, successor)
        assert activation.live_run is None
    assert set(outcomes) == {"owner", "successor"}
    log = await log_of(store, ref)
    assert len(log) == len({event.turn_id for event in log}) == ROUNDS
    assert all(event.type in TERMINAL_EVENTS for event in log)


CHANGES = {
    "turn_marker": "UPDATE turn_marker SET deadline_at = now()",
    "conversation": "UPDATE conversation SET last_activity_at = now()",
    "turn": "UPDATE turn SET failures = 1",
    "run": "UPDATE run SET worker_pid = 7",
    "actor_lease": "UPDATE actor_lease SET acquired_at = now()",
}


@pytest.mark.parametrize("table", CHANGES)
async def test_an_end_waits_for_a_row_that_somebody_changes(store, database_url, make_scene, table):
    """And then happens whole, as if it had come behind that."""
    ref = (await make_scene(store)).ref
    lease = (await store.activate(ref, await alive(store, "h1"))).lease
    turn, run_id = await begin(store, ref, lease)
    ended = []

    async def finish() -> None:
        ended.extend(await store.finish_run(lease, end(run_id, turn)))

    with psycopg.connect(database_url) as other, psycopg.connect(database_url, autocommit=True) as looking:
        other.execute(CHANGES[table])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(finish)
            with trio.fail_after(60):
                while not looking.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert ended == []
            other.commit()
    assert await log_of(store, ref) == ended
    assert [event.turn_id for event in ended] == [turn.turn_id]
    assert (await store.find_turn(ref, turn.message_id)).status is TurnStatus.COMPLETED
    activation = await store.activate(ref, "h1")
    assert (activation.live_run, activation.owed) == (None, ())


async def test_many_accepts_and_ends_at_once(store, others, make_scene):
    """Positions, one turn a message, no gap in the log, while the owner works the queue off."""
    ref = (await make_scene(store)).ref
    lease = (await store.activate(ref, await alive(store, "h1"))).lease
    accepted = []
    messages = [new_id() for _ in range(60)]

    async def accept(edge: PostgresStore, message_id: str) -> None:
        accepted.append(await edge.accept_turn(NewTurn(ref, new_id(), message_id, "hello"), max_owed=1000))

    async def work() -> None:
        ended = 0
        while ended < len(messages):
            for turn in await store.load_owed(lease, limit=5):
                run_id = new_id()
                assert await store.start_run(lease, StartRun(run_id, (turn.turn_id,), 1, None, None)) is not None
                assert await store.finish_run(lease, end(run_id, turn)) is not None
                ended += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for message_id in messages:
                nursery.start_soon(accept, store, message_id)
                nursery.start_soon(accept, others, message_id)
    assert all(isinstance(one, Accepted) for one in accepted)
    assert sum(one.created for one in accepted) == len(messages)
    assert len({one.turn.turn_id for one in accepted}) == len(messages)
    assert len(await log_of(store, ref)) == len(messages)


async def test_accepts_against_a_close(store, others, make_scene):
    """Accepted before the close, or refused: never accepted into a closed conversation."""
    await alive(store, "h1")
    for _ in range(30):
        ref = (await make_scene(store)).ref
        lease = (await store.activate(ref, "h1")).lease
        results = []

        async def accept(edge, ref=ref, results=results) -> None:
            results.append(await edge.accept_turn(NewTurn(ref, new_id(), new_id(), "hello"), max_owed=100))

        async def close(lease=lease) -> None:
            while await store.close_conversation(lease, "deleted") is None:
                for turn in await store.load_owed(lease, limit=10):
                    await store.finish_run(lease, end(None, turn))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    if number == 2:
                        nursery.start_soon(close)
                    nursery.start_soon(accept, (store, others)[number % 2])
        log = await log_of(store, ref)
        assert log[-1].type is EventType.CLOSED
        assert len(log) - 1 == sum(isinstance(one, Accepted) for one in results)
        assert all(isinstance(one, Accepted) or one == Refused("closed") for one in results)
        assert (await store.find_conversation("acme", ref.conversation_id)).queued == 0


async def test_hosts_racing_for_one_lease(store, make_scene):
    ref = (await make_scene(store)).ref
    hosts = [await alive(store, f"h{number}") for number in range(6)]
    results = []

    async def activate(host_id: str) -> None:
        results.append(await store.activate(ref, host_id))

    async with trio.open_nursery() as nursery:
        for host_id in hosts:
            nursery.start_soon(activate, host_id)
    [winner] = [result for result in results if isinstance(result, Activation)]
    assert {result.host_id for result in results if result is not winner} == {winner.lease.host_id}


@attrs.define
class Load:
    """One conversation that ends turns as fast as it can and asks again after every unknown outcome."""

    store: PostgresStore
    ref: object
    lease: object
    ended: int = 0
    unknown: int = 0
    content: bytes = b""

    async def ask(self, call):
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                self.unknown += isinstance(error, StoreOutcomeUnknown)
                await trio.sleep(0.005)

    async def turn(self) -> None:
        new = NewTurn(self.ref, new_id(), new_id(), "hello")
        accepted = await self.ask(lambda: self.store.accept_turn(new, max_owed=10))
        turn = accepted.turn
        assert turn.turn_id == new.turn_id
        start = StartRun(new_id(), (turn.turn_id,), 1, None, None)
        assert await self.ask(lambda: self.store.start_run(self.lease, start)) == []
        if self.ended % 5 == 4:
            requeue = RequeueRun(start.run_id, start.turn_ids, failed=True)
            [turn] = await self.ask(lambda: self.store.requeue_run(self.lease, requeue))
            assert turn.attempt == 2
            start = replace(start, run_id=new_id(), attempt=2)
            assert await self.ask(lambda: self.store.start_run(self.lease, start)) == []
        question = NewEvent(EventType.QUESTION, {"questionId": turn.turn_id})
        assert (await self.ask(lambda: self.store.append_event(self.lease, question))).data == question.data
        line = turn.turn_id.encode()
        whole = self.content + line
        segment = Segment(1, len(self.content), len(whole), hashlib.sha256(whole).hexdigest(), line)
        finish = end(start.run_id, turn, segment=segment)
        [event] = await self.ask(lambda: self.store.finish_run(self.lease, finish))
        assert (event.turn_id, event.type) == (turn.turn_id, EventType.COMPLETE)
        self.content = whole
        self.ended += 1


@pytest.fixture
async def own_server(server_folder: Path):
    server = EmbeddedServer(server_folder)
    await server.start()
    yield server
    await server.stop("immediate")


async def test_the_server_dies_under_load_and_comes_back(own_server, make_scene):
    """Every turn ends once although answers got lost: the same call again gives the right one."""
    await migrate(own_server.url)
    store = PostgresStore.connect(own_server.url, pool_size=8)
    await alive(store, "h1")
    loads = []
    for _ in range(6):
        ref = (await make_scene(store)).ref
        loads.append(Load(store, ref, (await store.activate(ref, "h1")).lease))
    stop = False

    async def drive(load: Load) -> None:
        while not stop:
            await load.turn()

    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            for load in loads:
                nursery.start_soon(drive, load)
            for _ in range(4):
                target = sum(load.ended for load in loads) + 60
                while True:
                    await trio.sleep(0.005)
                    if sum(load.ended for load in loads) >= target:
                        break
                await own_server.restart("immediate")
            stop = True
    assert sum(load.unknown for load in loads) > 0
    for load in loads:
        log = await log_of(store, load.ref)
        terminals = [event.turn_id for event in log if event.type in TERMINAL_EVENTS]
        assert len(terminals) == len(set(terminals)) == load.ended
        assert len(log) == 2 * load.ended
        assert await store.read_snapshot(load.ref) == load.content
    assert (await store.totals()).queued == 0
    store.close()

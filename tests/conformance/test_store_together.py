"""Conversations that are written to at the same moment, on Postgres in one statement: each has its own outcome."""

from __future__ import annotations

import attrs
import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import OnBusy, TurnStatus
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.records import Accepted, Activation, Direction, NewFile, Refused, StartRun

MANY = 12


async def at_once(works):
    """What each gives or raises. The first is under way while the others gather."""
    outcomes = [None] * len(works)

    async def one(number, work):
        try:
            outcomes[number] = await work()
        except StoreRejected as error:
            outcomes[number] = error

    async with trio.open_nursery() as nursery:
        for number, work in enumerate(works):
            nursery.start_soon(one, number, work)
    return outcomes


@pytest.fixture
async def owners(owner, helpers):
    """As `owner`, with more conversations beside its own."""
    owners = [owner]
    for number in range(MANY - 1):
        ref = owner.ref._replace(conversation_id=f"beside-{number}")
        await owner.store.open_conversation(ref, "u")
        activation = await owner.store.activate(ref, "h1")
        assert isinstance(activation, Activation)
        owners.append(attrs.evolve(owner, ref=ref, lease=activation.lease))
    return owners


async def test_accepts(owners, helpers):
    store = owners[0].store
    full, closed, repeated, ill, busy, nowhere, with_file, file_less = owners[2:10]
    for message_id in ("m1", "m2"):
        await full.accept(message_id)
    await store.mark_closing(closed.ref)
    first = await repeated.accept("m1")
    await busy.accept("m1")
    file_id = new_id()
    await store.begin_file(NewFile(with_file.ref, file_id, Direction.IN, "a.txt", "text/plain", 60))
    await store.append_chunk(with_file.ref.organization_id, file_id, 0, b"abc")
    await store.seal_file(with_file.ref.organization_id, file_id, size=3, sha256="x")
    turns = [helpers.new_turn(one.ref, "m1") for one in owners]
    turns[owners.index(full)] = helpers.new_turn(full.ref, "m3")
    turns[owners.index(ill)] = replace(helpers.new_turn(ill.ref), payload={"nul": "\0"})
    turns[owners.index(busy)] = replace(helpers.new_turn(busy.ref, "m2"), on_busy=OnBusy.REJECT)
    turns[owners.index(nowhere)] = helpers.new_turn(nowhere.ref._replace(conversation_id="nowhere"))
    turns[owners.index(with_file)] = replace(helpers.new_turn(with_file.ref), file_ids=(file_id,))
    turns[owners.index(file_less)] = replace(helpers.new_turn(file_less.ref), file_ids=(new_id(),))
    outcomes = await at_once([lambda turn=turn: store.accept_turn(turn, max_owed=2) for turn in turns])
    told = dict(zip((one.ref.conversation_id for one in owners), outcomes, strict=True))
    assert told.pop(full.ref.conversation_id) == Refused("full")
    assert told.pop(closed.ref.conversation_id) == Refused("closed")
    assert told.pop(busy.ref.conversation_id) == Refused("busy")
    assert told.pop(nowhere.ref.conversation_id) == Refused("missing")
    assert told.pop(repeated.ref.conversation_id) == Accepted(first, created=False)
    assert isinstance(told.pop(file_less.ref.conversation_id), StoreRejected)
    if not isinstance(told[ill.ref.conversation_id], Accepted):  # the server's jsonb has no NUL
        assert isinstance(told.pop(ill.ref.conversation_id), StoreRejected)
    assert [file.file_id for file in await store.list_files(with_file.ref, limit=9)] == [file_id]
    for outcome in told.values():
        assert isinstance(outcome, Accepted)
        assert outcome.created
        assert await store.find_owed_turn(outcome.turn.ref) == outcome.turn


async def test_begins_and_ends(owners, helpers):
    store = owners[0].store
    turns = [await one.accept() for one in owners]
    late, lost, again = owners[1:4]
    await store.finish_run(late.lease, helpers.finish(None, turns[1]))
    runs = [StartRun(new_id(), (turn.turn_id,), 1, 1, 2.5) for turn in turns]
    runs[3] = replace(runs[3], attempt=2, restart_events=({"type": "restart", "n": 3},))
    leases = [one.lease for one in owners]
    leases[2] = replace(lost.lease, epoch=lost.lease.epoch + 1)
    begun = await at_once(
        [lambda lease=lease, run=run: store.start_run(lease, run) for lease, run in zip(leases, runs, strict=True)]
    )
    assert begun[1] is None, "what is not queued any more"
    assert begun[2] is None, "another's lease"
    [restart] = begun[3]
    assert (restart.ref, restart.type, restart.data) == (again.ref, EventType.RESTART, {"type": "restart", "n": 3})
    assert begun[:1] + begun[4:] == [[]] * (MANY - 3)

    ends = [
        helpers.finish(run.run_id, turn, segment=helpers.segment(turn.turn_id.encode()))
        for run, turn in zip(runs, turns, strict=True)
    ]
    ended = await at_once(
        [lambda lease=lease, end=end: store.finish_run(lease, end) for lease, end in zip(leases, ends, strict=True)]
    )
    assert ended[1] is None
    assert ended[2] is None
    for number in (0, *range(3, MANY)):
        one, turn = owners[number], turns[number]
        [event] = ended[number]
        assert (event.ref, event.turn_id, event.data) == (one.ref, turn.turn_id, ends[number].ends[0].data)
        assert (await store.read_events(one.ref, 1, limit=9))[-1] == event
        assert (await store.find_turn(one.ref, turn.message_id)).status is TurnStatus.COMPLETED
        assert await store.read_snapshot(one.ref) == turn.turn_id.encode()
    assert await store.load_owed(lost.lease, limit=9) == [turns[2]]
    assert await store.read_snapshot(lost.ref) is None


async def test_ends_of_several_turns_each(owners, helpers):
    turns = [[await one.accept() for _ in range(2)] for one in owners]
    runs = [await one.start(*both) for one, both in zip(owners, turns, strict=True)]
    store = owners[0].store
    ended = await at_once(
        [
            lambda one=one, run=run, both=both: store.finish_run(one.lease, helpers.finish(run, *both))
            for one, run, both in zip(owners, runs, turns, strict=True)
        ]
    )
    for one, both, events in zip(owners, turns, ended, strict=True):
        assert [(event.seq, event.turn_id) for event in events] == [
            (n + 1, turn.turn_id) for n, turn in enumerate(both)
        ]
        assert (await store.activate(one.ref, "h1")).live_run is None

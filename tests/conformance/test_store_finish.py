"""The terminal statement and what it keeps: the same on both stores."""

import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract import events
from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import RunStatus, TurnStatus
from lobu_actors.store.errors import SnapshotCorrupt
from lobu_actors.store.records import FinishRun, StartRun, TurnEnd


async def complete(owner, helpers, segment=None):
    """One whole turn; gives its run id."""
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn, segment=segment)) is not None
    return run_id


async def test_each_message_gets_its_own_end(owner, helpers):
    turns = [await owner.accept() for _ in range(3)]
    run_id = await owner.start(*turns)
    end = helpers.finish(run_id, *turns)
    written = await owner.store.finish_run(owner.lease, end)
    assert [(event.seq, event.turn_id) for event in written] == [(n + 1, turn.turn_id) for n, turn in enumerate(turns)]
    assert [event.data for event in written] == [one.data for one in end.ends]
    assert {(event.run_id, event.attempt, event.text_offset) for event in written} == {(run_id, 1, 4)}
    assert await owner.store.read_events(owner.ref, 1, limit=10) == written
    assert await owner.store.load_owed(owner.lease, limit=10) == []
    for turn in turns:
        assert (await owner.store.find_turn(owner.ref, turn.message_id)).status is TurnStatus.COMPLETED


async def test_asked_again_it_gives_the_same(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first, second)
    end = helpers.finish(run_id, first, second, segment=helpers.segment(b"abc"))
    written = await owner.store.finish_run(owner.lease, end)
    assert await owner.store.finish_run(owner.lease, end) == written
    # Also when the lease is gone by then: what was written was written under it.
    await owner.store.release(owner.lease)
    assert await owner.store.finish_run(owner.lease, end) == written
    assert len(await owner.store.read_events(owner.ref, 1, limit=10)) == 2


async def test_what_somebody_else_ended_is_not_ours(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.declare_host_dead("h1")
    taken = await owner.store.activate(owner.ref, await helpers.alive(owner.store, "h2"))
    lost = FinishRun(
        None,
        RunStatus.FAILED,
        TurnStatus.FAILED,
        (TurnEnd(turn.turn_id, EventType.AGENT_ERROR, {"errorCode": "HOST_LOST"}),),
        error_code="HOST_LOST",
    )
    [event] = await owner.store.finish_run(taken.lease, lost)
    assert event.type is EventType.AGENT_ERROR
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is None
    assert await owner.store.finish_run(taken.lease, helpers.finish(None, turn)) is None
    assert await owner.store.finish_run(taken.lease, lost) == [event]
    # The lost run ended with its last turn, so a next one can begin.
    assert (await owner.store.activate(owner.ref, "h2")).live_run is None


async def test_only_what_is_still_owed_is_ended(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    cancelled = FinishRun(
        None,
        RunStatus.CANCELLED,
        TurnStatus.CANCELLED,
        (TurnEnd(first.turn_id, EventType.CANCELLED, events.cancelled(first.message_id, [], "", 1)),),
    )
    assert len(await owner.store.finish_run(owner.lease, cancelled)) == 1
    run_id = await owner.start(second)
    both = helpers.finish(run_id, first, second)
    written = await owner.store.finish_run(owner.lease, both)
    assert [(event.seq, event.turn_id) for event in written] == [(2, second.turn_id)]
    assert await owner.store.finish_run(owner.lease, both) == written


async def test_a_queued_turn_ends_without_touching_the_run(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert len(await owner.store.finish_run(owner.lease, helpers.finish(None, second))) == 1
    assert (await owner.store.activate(owner.ref, "h1")).live_run.run_id == run_id


async def test_an_ended_run_ends_nothing_more(owner, helpers):
    first, second = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, first))
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, second)) is None
    assert await owner.store.finish_run(owner.lease, helpers.finish(new_id(), second)) is None
    assert await owner.store.load_owed(owner.lease, limit=10) == [second]


async def test_only_terminal_events_end(owner):
    turn = await owner.accept()
    end = FinishRun(None, RunStatus.FAILED, TurnStatus.FAILED, (TurnEnd(turn.turn_id, EventType.RESTART, {}),))
    with pytest.raises(ValueError, match="terminal"):
        await owner.store.finish_run(owner.lease, end)


async def test_finishing_many_times_at_once_writes_one_end(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    results = []

    async def finish() -> None:
        results.append(await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(finish)
    assert results == [results[0]] * 6
    assert await owner.store.read_events(owner.ref, 1, limit=10) == results[0]


async def test_a_snapshot_grows_by_suffixes_and_starts_again(owner, helpers):
    store = owner.store
    assert await store.read_snapshot(owner.ref) is None
    await complete(owner, helpers, helpers.segment(b"abc"))
    await complete(owner, helpers, helpers.segment(b"def", base=b"abc"))
    await complete(owner, helpers)
    run_id = await complete(owner, helpers, helpers.segment(b"g" * 10_000, base=b"abcdef"))
    assert await store.read_snapshot(owner.ref) == b"abcdef" + b"g" * 10_000
    mark = (await store.activate(owner.ref, "h1")).snapshot
    assert (mark.run_id, mark.length) == (run_id, 10_006)


async def test_a_whole_segment_replaces_what_was(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"abc"))
    await complete(owner, helpers, helpers.segment(b"def", base=b"abc"))
    await complete(owner, helpers, helpers.segment(b"xy"))
    await complete(owner, helpers, helpers.segment(b"\x00\xff", base=b"xy"))
    assert await owner.store.read_snapshot(owner.ref) == b"xy\x00\xff"


async def test_an_empty_file_is_a_snapshot(owner, helpers):
    await complete(owner, helpers, helpers.segment(b""))
    assert await owner.store.read_snapshot(owner.ref) == b""


async def test_damage_is_noticed(owner, helpers):
    bad = replace(helpers.segment(b"abc"), sha256="0" * 64)
    await complete(owner, helpers, bad)
    with pytest.raises(SnapshotCorrupt):
        await owner.store.read_snapshot(owner.ref)
    await complete(owner, helpers, helpers.segment(b"fine"))
    assert await owner.store.read_snapshot(owner.ref) == b"fine"
    await complete(owner, helpers, helpers.segment(b"!", base=b"finer"))
    with pytest.raises(SnapshotCorrupt):
        await owner.store.read_snapshot(owner.ref)


async def test_a_suffix_without_its_beginning_is_damage(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"def", base=b"abc"))
    with pytest.raises(SnapshotCorrupt):
        await owner.store.read_snapshot(owner.ref)


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMEOUT])
async def test_no_snapshot_of_a_run_that_did_not_complete(owner, helpers, status):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    end = replace(
        helpers.finish(run_id, turn, segment=helpers.segment(b"abc")), status=status, turn_status=TurnStatus(status)
    )
    assert await owner.store.finish_run(owner.lease, end) is not None
    assert await owner.store.read_snapshot(owner.ref) is None


async def test_another_generation_is_not_read(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"abc", generation=2))
    assert await owner.store.read_snapshot(owner.ref) is None
    await owner.store.close_conversation(owner.lease, "deleted")
    await owner.store.open_conversation(owner.ref, "ann")
    await complete(owner, helpers, helpers.segment(b"new", generation=2))
    assert await owner.store.read_snapshot(owner.ref) == b"new"


async def test_usage_and_exit_are_taken(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    end = replace(helpers.finish(run_id, turn), usage={"tokens": 5}, exit_status="exit 0", segment=None)
    assert await owner.store.finish_run(owner.lease, end) is not None
    assert await owner.store.start_run(owner.lease, StartRun(run_id, (turn.turn_id,), 1, None, None)) is None

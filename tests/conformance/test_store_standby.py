"""A message whose run begins in the statement that accepts it: the same on both stores."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import new_id
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.store.records import Accepted, RequeueRun
from lobu_actors.store.standby_records import NextRun


@pytest.fixture
def run(owner):
    return NextRun(owner.lease, new_id(), 7, 2.5)


async def accept(owner, turn, run):
    accepted = await owner.store.accept_turn(turn, max_owed=9, run=run)
    assert isinstance(accepted, Accepted)
    return accepted


async def test_it_is_as_if_it_had_been_begun_by_its_owner(owner, helpers, run):
    new = helpers.new_turn(owner.ref)
    accepted = await accept(owner, new, run)
    assert (accepted.created, accepted.begun) == (True, True)
    assert (accepted.turn.status, accepted.turn.position) == (TurnStatus.QUEUED, 0)
    [owed] = await owner.store.load_owed(owner.lease, limit=9)
    assert owed == replace(accepted.turn, status=TurnStatus.RUNNING)
    record = (await owner.store.activate(owner.ref, "h1")).live_run
    assert (record.run_id, record.turn_ids, record.status, record.attempt) == (
        run.run_id, (new.turn_id,), RunStatus.LIVE, 1,
    )  # fmt: skip
    assert (record.host_id, record.epoch) == (owner.lease.host_id, owner.lease.epoch)
    assert (record.worker_pid, record.worker_started_at) == (7, 2.5)


async def test_it_ends_like_any_other(owner, helpers, run):
    accepted = await accept(owner, helpers.new_turn(owner.ref), run)
    [event] = await owner.store.finish_run(owner.lease, helpers.finish(run.run_id, accepted.turn))
    assert event.turn_id == accepted.turn.turn_id
    assert await owner.store.load_owed(owner.lease, limit=9) == []
    assert (await accept(owner, helpers.new_turn(owner.ref), replace(run, run_id=new_id()))).begun


async def test_it_goes_back_to_the_queue_like_any_other(owner, helpers, run):
    accepted = await accept(owner, helpers.new_turn(owner.ref), run)
    requeue = RequeueRun(run.run_id, (accepted.turn.turn_id,), failed=False, error_code="NOT_SENT")
    [queued] = await owner.store.requeue_run(owner.lease, requeue)
    assert (queued.status, queued.attempt, queued.failures) == (TurnStatus.QUEUED, 2, 0)
    await owner.start(queued)


async def test_what_is_owed_goes_first(owner, helpers, run):
    first = await owner.accept()
    accepted = await accept(owner, helpers.new_turn(owner.ref), run)
    assert (accepted.created, accepted.begun, accepted.turn.position) == (True, False, 1)
    assert await owner.store.load_owed(owner.lease, limit=9) == [first, accepted.turn]
    await owner.start(first)


async def test_a_lease_that_is_not_held_begins_nothing(owner, helpers, run):
    for lease in (
        replace(owner.lease, epoch=owner.lease.epoch + 1),
        replace(owner.lease, host_id="h2"),
    ):
        accepted = await accept(owner, helpers.new_turn(owner.ref), replace(run, lease=lease))
        assert (accepted.created, accepted.begun) == (True, False)
        await owner.store.finish_run(owner.lease, helpers.finish(None, accepted.turn))
    await owner.store.release(owner.lease)
    assert not (await accept(owner, helpers.new_turn(owner.ref), run)).begun


async def test_asked_again_it_says_whether_it_has_begun(owner, helpers, run):
    new = helpers.new_turn(owner.ref)
    await accept(owner, new, run)
    again = await accept(owner, new, run)
    assert (again.created, again.begun, again.turn.status) == (False, True, TurnStatus.RUNNING)
    other = replace(run, run_id=new_id())
    assert not (await accept(owner, new, other)).begun, "that one has not"
    assert not (await owner.store.accept_turn(new, max_owed=9)).begun
    await owner.store.finish_run(owner.lease, helpers.finish(run.run_id, again.turn))
    assert not (await accept(owner, new, run)).begun, "it is over"


async def test_what_was_accepted_without_it_has_not_begun(owner, helpers, run):
    new = helpers.new_turn(owner.ref)
    await owner.store.accept_turn(new, max_owed=9)
    assert not (await accept(owner, new, run)).begun


async def test_what_is_refused_begins_nothing(owner, helpers, run):
    await owner.store.mark_closing(owner.ref)
    await owner.store.accept_turn(helpers.new_turn(owner.ref), max_owed=9, run=run)
    assert (await owner.store.activate(owner.ref, "h1")).live_run is None


async def test_who_minds_others_begins_when_there_is_none(owner, helpers, run):
    new = replace(helpers.new_turn(owner.ref), on_busy=OnBusy.REJECT)
    assert (await accept(owner, new, run)).begun

"""Messages that join a run and leave it again unread: the same on both stores."""

import attrs
from msgspec.structs import replace

from lobu_actors.contract.states import TurnStatus


async def test_what_nobody_read_is_queued_again(owner, helpers):
    first, late, other = await owner.accept(), await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    for turn in (late, other):
        assert await owner.store.join_run(owner.lease, run_id, turn.turn_id)
    for _ in range(2):
        assert await owner.store.leave_run(owner.lease, run_id, (late.turn_id, "no-such-turn")) is True
        owed = {turn.turn_id: turn for turn in await owner.store.load_owed(owner.lease, limit=10)}
        again = owed[late.turn_id]
        assert (again.status, again.attempt, again.failures) == (TurnStatus.QUEUED, 2, 0), "once, however often"
        assert owed[other.turn_id].status is TurnStatus.RUNNING
    activation = await owner.store.activate(owner.ref, owner.lease.host_id)
    assert activation.live_run.turn_ids == (first.turn_id, other.turn_id)
    lease = activation.lease
    assert await owner.store.finish_run(lease, helpers.finish(run_id, first, other)) is not None
    owner = attrs.evolve(owner, lease=lease)
    run_id = await owner.start(again)
    assert await owner.store.finish_run(lease, helpers.finish(run_id, again)) is not None
    assert await owner.store.load_owed(lease, limit=10) == []


async def test_the_first_message_of_a_run_stays_and_so_does_what_is_not_in_it(owner):
    first, waits = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert await owner.store.leave_run(owner.lease, run_id, (first.turn_id, waits.turn_id)) is True
    found = {turn.turn_id: (turn.status, turn.attempt) for turn in await owner.store.load_owed(owner.lease, limit=10)}
    assert found == {first.turn_id: (TurnStatus.RUNNING, 1), waits.turn_id: (TurnStatus.QUEUED, 1)}


async def test_nothing_leaves_a_run_that_is_over_or_under_a_lease_that_is_lost(owner, helpers):
    first, late = await owner.accept(), await owner.accept()
    run_id = await owner.start(first)
    assert await owner.store.join_run(owner.lease, run_id, late.turn_id)
    stale = replace(owner.lease, epoch=owner.lease.epoch + 1)
    assert await owner.store.leave_run(stale, run_id, (late.turn_id,)) is False
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, first, late)) is not None
    assert await owner.store.leave_run(owner.lease, run_id, (late.turn_id,)) is True
    assert await owner.store.load_owed(owner.lease, limit=10) == []

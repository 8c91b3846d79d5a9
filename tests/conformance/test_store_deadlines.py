"""Deadlines of running turns, and taking over from an owner that lets them pass: the same on both stores."""

from lobu_actors.store.records import Activation, HeldElsewhere, MarkerDeadline


def deadline(owner, turn, run_id, seconds):
    return MarkerDeadline(owner.ref.organization_id, turn.turn_id, run_id, seconds)


async def test_a_stuck_owner_is_fenced_though_its_host_lives(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await helpers.alive(owner.store, "h2")
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, 60)]) == 1
    assert await owner.store.find_overdue(limit=10) == []
    assert await owner.store.activate(owner.ref, "h2", overdue=True) == HeldElsewhere("h1"), "not due yet"
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, -1)]) == 1
    assert await owner.store.find_overdue(limit=10) == [owner.ref]
    assert await owner.store.activate(owner.ref, "h2") == HeldElsewhere("h1"), "only who says so takes it"
    taken = await owner.store.activate(owner.ref, "h2", overdue=True)
    assert isinstance(taken, Activation)
    assert [owed.turn_id for owed in taken.owed] == [turn.turn_id]
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is None


async def test_only_the_host_and_run_that_a_marker_names_move_its_deadline(owner, helpers):
    turn = await owner.accept()
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, "r", -1)]) == 0, "it is not running"
    run_id = await owner.start(turn)
    assert await owner.store.extend_deadlines("h2", [deadline(owner, turn, run_id, -1)]) == 0
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, "other", -1)]) == 0
    assert await owner.store.extend_deadlines("h1", []) == 0
    assert await owner.store.find_overdue(limit=10) == []


async def test_what_ended_or_waits_again_is_not_overdue(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, -1)])
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    assert await owner.store.find_overdue(limit=10) == []

"""Deadlines of running turns, and taking over from an owner that lets them pass: the same on both stores."""

from msgspec.structs import replace

from lobu_actors.store.records import Activation, HeldElsewhere, MarkerDeadline, RequeueRun, StartRun


def deadline(owner, turn, run_id, seconds):
    return MarkerDeadline(owner.ref.organization_id, turn.turn_id, run_id, seconds)


async def test_a_stuck_owner_is_fenced_though_its_host_lives(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await helpers.alive(owner.store, "h2")
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, 60)]) == {turn.turn_id}
    assert await owner.store.find_overdue(limit=10) == []
    assert await owner.store.activate(owner.ref, "h2", overdue=True) == HeldElsewhere("h1"), "not due yet"
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, -1)]) == {turn.turn_id}
    assert await owner.store.find_overdue(limit=10) == [owner.ref]
    assert await owner.store.activate(owner.ref, "h2") == HeldElsewhere("h1"), "only who says so takes it"
    taken = await owner.store.activate(owner.ref, "h2", overdue=True)
    assert isinstance(taken, Activation)
    assert [owed.turn_id for owed in taken.owed] == [turn.turn_id]
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, 60)]) == set(), (
        "nor promises anything"
    )
    assert await owner.store.find_overdue(limit=10) == [owner.ref]
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is None


async def test_only_the_host_and_run_that_a_marker_names_move_its_deadline(owner, helpers):
    turn = await owner.accept()
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, "r", -1)]) == set(), "it is not running"
    run_id = await owner.start(turn)
    assert await owner.store.extend_deadlines("h2", [deadline(owner, turn, run_id, -1)]) == set()
    assert await owner.store.extend_deadlines("h1", [deadline(owner, turn, "other", -1)]) == set()
    assert await owner.store.extend_deadlines("h1", []) == set()
    assert await owner.store.find_overdue(limit=10) == []


async def test_who_adopts_a_run_is_told_with_what_its_provider_had_failed(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    refused = replace(deadline(owner, turn, run_id, 60), provider_failed_code="PROVIDER_QUOTA")
    assert await owner.store.extend_deadlines("h1", [refused]) == {turn.turn_id}
    assert (await owner.store.adopt_run(owner.lease, run_id)).provider_failed_code == "PROVIDER_QUOTA"
    assert (await owner.store.adopt_run(owner.lease, run_id)).provider_failed_code == "PROVIDER_QUOTA", "asked again"
    await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, 60)])
    assert (await owner.store.adopt_run(owner.lease, run_id)).provider_failed_code is None, "it said something since"
    await owner.store.extend_deadlines("h1", [refused])
    [turn] = await owner.store.requeue_run(owner.lease, RequeueRun(run_id, (turn.turn_id,), failed=True))
    assert (await owner.store.adopt_run(owner.lease, await owner.start(turn))).provider_failed_code is None


async def test_what_ended_or_waits_again_is_not_overdue(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, -1)])
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    assert await owner.store.find_overdue(limit=10) == []


async def test_what_runs_again_has_no_deadline_of_the_run_before(owner, helpers):
    """Else its new owner would be taken for stuck before it has said until when it promises anything."""
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.extend_deadlines("h1", [deadline(owner, turn, run_id, -1)])
    [turn] = await owner.store.requeue_run(owner.lease, RequeueRun(run_id, (turn.turn_id,), failed=True))
    await owner.start(turn)
    assert await owner.store.find_overdue(limit=10) == []
    await helpers.alive(owner.store, "h2")
    assert await owner.store.activate(owner.ref, "h2", overdue=True) == HeldElsewhere("h1")


async def test_the_longest_overdue_comes_first_and_each_once(owner, helpers, make_scene):
    """A conversation with many overdue turns does not take the place of others."""
    store, scene = owner.store, await make_scene(owner.store)
    other = (await store.activate(scene.ref, "h1")).lease
    [turn] = [(await store.accept_turn(helpers.new_turn(other.ref), max_owed=9)).turn]
    await store.start_run(other, StartRun("theirs", (turn.turn_id,), 1, None, None))
    mine = [await owner.accept() for _ in range(3)]
    run_id = await owner.start(*mine)
    passed = [deadline(owner, one, run_id, -seconds) for one, seconds in zip(mine, (5, 30, 1), strict=True)]
    await store.extend_deadlines("h1", [*passed, MarkerDeadline("acme", turn.turn_id, "theirs", -10)])
    assert await store.find_overdue(limit=2) == [owner.ref, other.ref]
    assert await store.find_overdue(limit=1) == [owner.ref]

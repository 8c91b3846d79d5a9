"""Sessions beside the terminal statement: resets, and snapshots that workers post. The same on both stores."""

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import new_id
from lobu_actors.store.records import Lease, NewSession


async def complete(owner, helpers, segment=None):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn, segment=segment)) is not None
    return run_id


async def generation(owner):
    found = await owner.store.find_conversation(owner.ref.organization_id, owner.ref.conversation_id)
    return found.generation


async def test_a_reset_begins_the_next_generation_without_a_snapshot(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"old\n"))
    assert await owner.store.reset_session(owner.lease, NewSession(1)) == 2
    assert await generation(owner) == 2
    assert await owner.store.read_snapshot(owner.ref) is None
    await complete(owner, helpers, helpers.segment(b"new\n", generation=2))
    assert await owner.store.read_snapshot(owner.ref) == b"new\n"


async def test_asked_again_a_reset_changes_nothing_more(owner, helpers):
    assert await owner.store.reset_session(owner.lease, NewSession(1, "said")) == 2
    await complete(owner, helpers, helpers.segment(b"new\n", generation=2))
    assert await owner.store.reset_session(owner.lease, NewSession(1, "other")) == 2
    assert await generation(owner) == 2
    assert await owner.store.read_snapshot(owner.ref) == b"new\n"
    assert await owner.store.read_carried_summary(owner.ref) == "said"


async def test_who_lost_the_lease_resets_and_purges_nothing(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"old\n"))
    late = Lease(owner.ref, owner.lease.host_id, owner.lease.epoch - 1)
    for lease in (late, replace(owner.lease, host_id="h2")):
        assert await owner.store.reset_session(lease, NewSession(1)) is None
        assert await owner.store.purge_snapshots(lease) is None
    assert await generation(owner) == 1
    assert await owner.store.read_snapshot(owner.ref) == b"old\n"


async def test_provider_and_model_go_with_the_new_session_and_a_plain_one_keeps_them(owner):
    assert await owner.store.reset_session(owner.lease, NewSession(1, "said", "prov", "prov/mod")) == 2
    assert await owner.store.reset_session(owner.lease, NewSession(2)) == 3
    found = await owner.store.find_conversation(owner.ref.organization_id, owner.ref.conversation_id)
    assert (found.provider, found.model) == ("prov", "prov/mod")
    assert await owner.store.read_carried_summary(owner.ref) is None


async def test_a_summary_ends_with_the_conversation(owner):
    await owner.store.reset_session(owner.lease, NewSession(1, "said"))
    assert await owner.store.close_conversation(owner.lease, "deleted") is not None
    await owner.store.open_conversation(owner.ref, "ann")
    assert await owner.store.read_carried_summary(owner.ref) is None


async def test_a_reset_touches_its_own_conversation_only(owner, helpers, make_scene):
    await complete(owner, helpers, helpers.segment(b"old\n"))
    other = await make_scene(owner.store)
    await helpers.alive(owner.store, "h2")
    theirs = await owner.store.activate(other.ref, "h2")
    assert await owner.store.reset_session(theirs.lease, NewSession(1)) == 2
    assert await owner.store.purge_snapshots(theirs.lease) == 0
    assert await owner.store.read_snapshot(owner.ref) == b"old\n"


async def test_a_posted_snapshot_is_kept_aside_once_while_its_run_lives(owner):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    assert await owner.store.is_run_live(owner.ref, run_id)
    assert await owner.store.post_snapshot(owner.ref, run_id, b"\x00\xffposted\n") is True
    assert await owner.store.post_snapshot(owner.ref, run_id, b"again\n") is False
    assert await owner.store.read_posted_snapshot(owner.ref, run_id) == b"\x00\xffposted\n"
    assert await owner.store.read_snapshot(owner.ref) is None


async def test_only_a_live_run_of_this_very_conversation_posts(owner, helpers, make_scene):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    other = await make_scene(owner.store)
    assert await owner.store.post_snapshot(other.ref, run_id, b"x\n") is None
    assert await owner.store.post_snapshot(owner.ref, new_id(), b"x\n") is None
    assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn)) is not None
    assert await owner.store.post_snapshot(owner.ref, run_id, b"x\n") is None
    assert not await owner.store.is_run_live(owner.ref, run_id)
    assert await owner.store.read_posted_snapshot(owner.ref, run_id) is None


@pytest.mark.parametrize("by_the_next_post", [False, True])
async def test_what_was_posted_for_a_run_that_is_over_is_forgotten(owner, helpers, by_the_next_post):
    turn = await owner.accept()
    first = await owner.start(turn)
    await owner.store.post_snapshot(owner.ref, first, b"x\n")
    await owner.store.discard_posted_snapshots(owner.ref)
    assert await owner.store.read_posted_snapshot(owner.ref, first) == b"x\n"
    await owner.store.finish_run(owner.lease, helpers.finish(first, turn))
    if by_the_next_post:
        second = await owner.start(await owner.accept())
        assert await owner.store.post_snapshot(owner.ref, second, b"y\n") is True
        assert await owner.store.read_posted_snapshot(owner.ref, second) == b"y\n"
    else:
        await owner.store.discard_posted_snapshots(owner.ref)
    assert await owner.store.read_posted_snapshot(owner.ref, first) is None


async def test_a_purge_says_how_much_it_deleted_and_is_idempotent(owner, helpers):
    await complete(owner, helpers, helpers.segment(b"one\n"))
    await complete(owner, helpers, helpers.segment(b"two\n", base=b"one\n"))
    run_id = await owner.start(await owner.accept())
    await owner.store.post_snapshot(owner.ref, run_id, b"x\n")
    assert await owner.store.purge_snapshots(owner.lease) == 2
    assert await owner.store.purge_snapshots(owner.lease) == 0
    assert await owner.store.read_snapshot(owner.ref) is None
    assert await owner.store.read_posted_snapshot(owner.ref, run_id) is None
    assert await generation(owner) == 1


async def test_a_provider_is_named_once(owner):
    for provider in ("one", "two"):
        await owner.store.name_provider(owner.ref, provider)
    found = await owner.store.find_conversation(owner.ref.organization_id, owner.ref.conversation_id)
    assert found.provider == "one"


async def test_closing_leaves_nothing_that_was_posted(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    await owner.store.post_snapshot(owner.ref, run_id, b"x\n")
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn))
    assert await owner.store.close_conversation(owner.lease, "deleted") is not None
    assert await owner.store.read_posted_snapshot(owner.ref, run_id) is None

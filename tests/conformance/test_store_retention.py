"""Retention over both stores: what goes, what must stay, and that a snapshot keeps its bytes through compaction."""

from __future__ import annotations

import pytest
from msgspec.structs import astuple, replace

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.question_records import NewQuestion
from lobu_actors.store.records import Direction, NewFile, RequeueRun

HOUR = 3600.0
AT_ONCE = 0.0  # older than now: all that was committed before


async def turns_that_ended(owner, helpers, number: int, *, grow: bool = False) -> list:
    """Each with a run of its own; with `grow` the session file grows by a line each."""
    ended, base = [], b""
    for index in range(number):
        turn = await owner.accept(f"m{index}")
        run_id = await owner.start(turn)
        segment = None
        if grow:
            segment = helpers.segment(b"line %d\n" % index, base)
            base += segment.data
        assert await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn, segment=segment))
        ended.append(turn)
    return ended


async def trim(owner, *, older_than_seconds: float = AT_ONCE, limit: int = 100):
    return await owner.store.trim(owner.ref, older_than_seconds=older_than_seconds, limit=limit)


async def seqs(owner) -> list[int]:
    return [event.seq for event in await owner.store.read_events(owner.ref, 0, limit=100)]


async def test_what_is_young_stays(owner, helpers):
    await turns_that_ended(owner, helpers, 2, grow=True)
    trimmed = await trim(owner, older_than_seconds=HOUR)
    assert not any(astuple(trimmed))
    assert await seqs(owner) == [1, 2]


async def test_a_turn_goes_with_its_event_and_its_run(owner, helpers):
    await turns_that_ended(owner, helpers, 3)
    trimmed = await trim(owner)
    assert (trimmed.turns, trimmed.events, trimmed.runs, trimmed.more) == (3, 3, 3, False)
    assert await owner.store.find_turn(owner.ref, "m0") is None
    assert await seqs(owner) == []
    again = await trim(owner)
    assert not any(astuple(again))


async def test_a_batch_is_bounded_and_takes_the_oldest(owner, helpers):
    await turns_that_ended(owner, helpers, 3)
    trimmed = await trim(owner, limit=2)
    assert (trimmed.turns, trimmed.events, trimmed.more) == (2, 2, True)
    assert await seqs(owner) == [3]
    assert await owner.store.find_turn(owner.ref, "m2") is not None


async def test_numbers_go_on_after_a_trim(owner, helpers):
    await turns_that_ended(owner, helpers, 2)
    await trim(owner)
    turn = await owner.accept("later")
    assert turn.first_seq == 2
    [event] = await owner.store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn))
    assert event.seq == 3
    found = await owner.store.find_conversation("acme", owner.ref.conversation_id)
    assert found.last_seq == 3
    assert await seqs(owner) == [3]


async def test_nothing_that_is_owed_goes(owner, helpers):
    [ended] = await turns_that_ended(owner, helpers, 1)
    queued, running = await owner.accept("queued"), await owner.accept("running")
    run_id = await owner.start(running)
    question = NewQuestion("q1", "w1", run_id, running.turn_id, "sure?", None, {"questionId": "q1"}, 1, 0)
    assert await owner.store.ask_question(owner.lease, question)
    trimmed = await trim(owner)
    # The event that a reader of the owed turns starts from, and with it its turn, stay too.
    assert not any(astuple(trimmed))
    assert ended.first_seq == 0
    assert await seqs(owner) == [1, 2]
    owed = await owner.store.load_owed(owner.lease, limit=10)
    assert [turn.turn_id for turn in owed] == [queued.turn_id, running.turn_id]


async def test_what_stands_before_an_owed_turn_goes(owner, helpers):
    await turns_that_ended(owner, helpers, 3)
    await owner.accept("owed")
    trimmed = await trim(owner)
    assert (trimmed.turns, trimmed.events) == (2, 2)
    assert await seqs(owner) == [3]


async def test_questions_go_with_their_turn(owner, helpers):
    turn = await owner.accept("m1")
    run_id = await owner.start(turn)
    question = NewQuestion("q1", "w1", run_id, turn.turn_id, "sure?", None, {"questionId": "q1"}, 1, 0)
    await owner.store.ask_question(owner.lease, question)
    await owner.store.answer_question(owner.ref, "q1", answer="yes", answered_by="ann")
    await owner.store.finish_run(owner.lease, helpers.finish(run_id, turn))
    trimmed = await trim(owner)
    assert (trimmed.turns, trimmed.events, trimmed.questions) == (1, 2, 1)
    assert await owner.store.find_answers(owner.ref, ["q1"]) == {}


async def test_files_expire_with_their_turn(owner, helpers):
    for number in (1, 2):
        file_id = f"f{number}"
        await owner.store.begin_file(NewFile(owner.ref, file_id, Direction.IN, "a.txt", "text/plain", HOUR))
        await owner.store.append_chunk("acme", file_id, 0, b"x")
        await owner.store.seal_file("acme", file_id, size=1, sha256="0" * 64)
        turn = replace(helpers.new_turn(owner.ref, f"m{number}"), file_ids=(file_id,))
        accepted = await owner.store.accept_turn(turn, max_owed=9)
        run_id = await owner.start(accepted.turn)
        await owner.store.finish_run(owner.lease, helpers.finish(run_id, accepted.turn))
    assert (await trim(owner, limit=1)).files == 1
    assert [file.file_id for file in await owner.store.list_files(owner.ref, limit=9)] == ["f2"]
    assert await owner.store.delete_expired_files(limit=9) == 1


async def test_runs_of_earlier_attempts_go_too(owner, helpers):
    turn = await owner.accept("m1")
    first = await owner.start(turn)
    [turn] = await owner.store.requeue_run(owner.lease, RequeueRun(first, (turn.turn_id,), failed=True))
    await owner.store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn))
    assert (await trim(owner)).runs == 2


async def test_the_newest_snapshot_stays_whole(owner, helpers):
    await turns_that_ended(owner, helpers, 4, grow=True)
    trimmed = await trim(owner)
    assert (trimmed.turns, trimmed.segments, trimmed.runs) == (4, 0, 0)
    assert await owner.store.read_snapshot(owner.ref) == b"line 0\nline 1\nline 2\nline 3\n"


async def test_superseded_segments_go_and_then_their_runs(owner, helpers):
    await turns_that_ended(owner, helpers, 2, grow=True)
    turn = await owner.accept("anew")
    await owner.store.finish_run(
        owner.lease, helpers.finish(await owner.start(turn), turn, segment=helpers.segment(b"other\n"))
    )
    assert (await trim(owner)).segments == 2
    assert (await trim(owner)).runs in (0, 2)  # in the second step at the latest
    assert not (await trim(owner)).runs
    assert await owner.store.read_snapshot(owner.ref) == b"other\n"


async def test_trimmable_conversations_are_found_page_by_page(owner, helpers, make_scene):
    await turns_that_ended(owner, helpers, 3, grow=True)
    other = await make_scene(owner.store, "rival")
    options = {"older_than_seconds": AT_ONCE, "max_segments": 2}
    [first] = await owner.store.find_trimmable(None, limit=1, **options)
    [second] = await owner.store.find_trimmable(first.ref, limit=1, **options)
    assert await owner.store.find_trimmable(second.ref, limit=1, **options) == []
    assert (first.ref, first.old, first.segments) == (owner.ref, True, 3)
    assert (second.ref, second.old, second.segments) == (other.ref, False, 0)
    [first, _] = await owner.store.find_trimmable(None, limit=9, older_than_seconds=HOUR, max_segments=1)
    assert (first.old, first.segments) == (False, 2)


@pytest.mark.parametrize("number", [1, 5])
async def test_compaction_keeps_every_byte(owner, helpers, number):
    await turns_that_ended(owner, helpers, number, grow=True)
    before = await owner.store.read_snapshot(owner.ref)
    compacted = await owner.store.compact(owner.ref)
    assert (compacted.replaced, compacted.corrupt) == (number - 1, False)
    assert await owner.store.read_snapshot(owner.ref) == before
    [found] = await owner.store.find_trimmable(None, older_than_seconds=HOUR, max_segments=9, limit=9)
    assert found.segments == 1


async def test_the_owner_goes_on_after_a_compaction_it_knows_nothing_of(owner, helpers):
    await turns_that_ended(owner, helpers, 3, grow=True)
    base = await owner.store.read_snapshot(owner.ref)
    await owner.store.compact(owner.ref)
    turn = await owner.accept("next")
    suffix = helpers.segment(b"next\n", base)
    events = await owner.store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn, segment=suffix))
    assert [event.type for event in events] == [EventType.COMPLETE]
    assert await owner.store.read_snapshot(owner.ref) == base + b"next\n"


async def test_a_corrupt_snapshot_is_left_as_it_is(owner, helpers):
    turn = await owner.accept()
    lie = replace(helpers.segment(b"bytes"), sha256="0" * 64)
    await owner.store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn, segment=lie))
    assert (await owner.store.compact(owner.ref)).corrupt
    [found] = await owner.store.find_trimmable(None, older_than_seconds=HOUR, max_segments=9, limit=9)
    assert found.segments == 1


async def test_nothing_to_compact(owner):
    compacted = await owner.store.compact(owner.ref)
    assert (compacted.replaced, compacted.corrupt) == (0, False)


async def test_a_closed_conversation_is_emptied(owner, helpers):
    await turns_that_ended(owner, helpers, 2, grow=True)
    await owner.store.mark_closing(owner.ref)
    assert await owner.store.close_conversation(owner.lease, "deleted")
    trimmed = await trim(owner)
    assert (trimmed.turns, trimmed.events, trimmed.runs) == (2, 3, 2)
    assert await owner.store.close_conversation(owner.lease, "deleted") is None
    found = await owner.store.find_conversation("acme", owner.ref.conversation_id)
    assert (found.last_seq, found.closed) == (3, True)


async def test_trimming_what_is_not_there(owner):
    missing = ConversationRef("acme", "echo", "missing")
    trimmed = await owner.store.trim(missing, older_than_seconds=AT_ONCE, limit=10)
    assert not any(astuple(trimmed))

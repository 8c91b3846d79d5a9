"""What is stored of a session file and what a run finds: torn lines, posted snapshots, resets, the session store."""

from __future__ import annotations

import os
from typing import Any

from lobu_actors.contract.states import RunStatus
from lobu_actors.store.errors import StoreOutcomeUnknown

A, B = b'{"id":"a"}\n', b'{"id":"b"}\n'
TORN = b'{"id":"torn", "mess'


async def test_what_is_stored_is_the_file_and_only_what_is_new_of_it(place: Any) -> None:
    first = await place.turn(A)
    second = await place.turn(B)
    assert (first.base_length, first.data) == (0, A)
    assert (second.base_length, second.data) == (len(A), B)
    assert await place.stored() == A + B == place.file.read_bytes()


async def test_a_torn_last_line_is_neither_stored_nor_left_to_be_continued(place: Any) -> None:
    await place.turn(A + TORN)
    assert await place.stored() == A
    await place.begin()
    assert place.file.read_bytes() == A
    place.append(B)
    assert (await place.complete()).data == B
    assert await place.stored() == A + B


async def test_a_file_that_is_nothing_but_a_torn_line_is_no_session(place: Any) -> None:
    assert await place.turn(TORN) is None
    assert await place.stored() is None
    await place.begin()
    assert not place.file.exists()


async def test_what_is_no_session_file_spoils_no_turn_behind_its_own(place: Any) -> None:
    await place.begin()
    place.file.parent.mkdir(exist_ok=True)
    place.file.mkdir()
    await place.complete(RunStatus.FAILED)
    assert (await place.turn(A)).data == A
    assert await place.stored() == A


async def test_what_an_attempt_that_failed_wrote_is_gone_before_the_next(place: Any) -> None:
    await place.turn(A)
    await place.begin()
    place.append(B + TORN)
    await place.complete(RunStatus.CANCELLED)
    await place.begin()
    assert place.file.read_bytes() == A


async def test_another_actor_finds_the_same_file_whatever_was_on_its_disk(place: Any) -> None:
    await place.turn(A + b"\xff\x00\n")
    for left in (b"something else\n", TORN, None):
        os.unlink(place.file)
        if left is not None:
            place.file.write_bytes(left)
        place = await place.activated_again()
        await place.begin()
        assert place.file.read_bytes() == A + b"\xff\x00\n"
        await place.complete(RunStatus.CANCELLED)


async def test_a_posted_snapshot_is_seen_with_the_reply_and_not_before(place: Any) -> None:
    await place.begin()
    assert await place.store.post_snapshot(place.ref, place.run_id, A + TORN) is True
    assert await place.stored() is None
    await place.complete()
    assert await place.stored() == A
    assert await place.store.read_posted_snapshot(place.ref, place.run_id) is None
    await place.begin()
    assert place.file.read_bytes() == A
    await place.store.post_snapshot(place.ref, place.run_id, A + B)
    assert (await place.complete()).data == B
    assert await place.stored() == A + B


async def test_a_posted_snapshot_of_a_run_that_did_not_complete_is_never_seen(place: Any) -> None:
    await place.turn(A)
    await place.begin()
    await place.store.post_snapshot(place.ref, place.run_id, A + B)
    await place.complete(RunStatus.CANCELLED)
    assert await place.stored() == A
    await place.turn(b"")
    assert await place.stored() == A


async def test_a_session_file_that_the_run_wrote_goes_before_what_it_posted(place: Any) -> None:
    await place.begin()
    place.append(A)
    await place.store.post_snapshot(place.ref, place.run_id, B)
    await place.complete()
    assert await place.stored() == A


async def test_deleted_snapshots_do_not_come_back_by_the_file_that_was_laid_out(place: Any) -> None:
    await place.turn(A)
    await place.begin()
    assert await place.store.purge_snapshots(place.lease) == 1
    place.session.snapshots_purged()
    assert await place.complete() is None
    assert await place.stored() is None
    await place.begin()
    assert not place.file.exists()
    place.append(B)
    assert (await place.complete()).base_length == 0
    assert await place.stored() == B


async def test_a_reset_leaves_neither_file_nor_snapshot_and_the_next_run_begins_empty(place: Any) -> None:
    await place.turn(A)
    assert await place.session.begin_anew(place.lease, {}) == 2
    assert not place.file.exists()
    assert await place.stored() is None
    assert (await place.turn(B)).generation == 2
    assert await place.stored() == B
    assert await place.session.summary() is None


class LostAnswers:
    """The store, of which the first answer to a reset is lost: it happened, and nobody knows."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.lost: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            result = await method(*args, **options)
            if name == "reset_session" and name not in self.lost:
                self.lost.add(name)
                raise StoreOutcomeUnknown("the answer was lost")
            return result

        return call


async def test_a_reset_whose_answer_is_lost_happens_once(open_place: Any) -> None:
    place = await open_place(wrap_store=LostAnswers)
    await place.turn(A)
    assert await place.session.begin_anew(place.lease, {}) == 2
    assert place.environment.store.lost == {"reset_session"}
    conversation = await place.store.find_conversation(place.ref.organization_id, place.ref.conversation_id)
    assert conversation.generation == 2
    assert (await place.turn(B)).generation == 2
    assert await place.stored() == B


async def test_who_lost_the_lease_begins_no_new_session(place: Any) -> None:
    await place.turn(A)
    await place.activated_again()
    assert await place.session.begin_anew(place.lease, {}) is None
    assert await place.stored() == A


MESSAGE = b'{"type":"message","id":"m","parentId":null,"message":{"role":"user","content":"remember me"}}\n'


async def test_a_summary_is_carried_until_the_new_session_has_something_of_its_own(place: Any) -> None:
    await place.turn(MESSAGE)
    payload = {"carrySummary": True, "provider": "other", "model": "other/m"}
    assert await place.session.begin_anew(place.lease, payload) == 2
    assert await place.session.summary() == "user: remember me"
    place = await place.activated_again()
    await place.begin()
    assert await place.session.summary() == "user: remember me"
    place.append(B)
    await place.complete()
    assert await place.session.summary() is None
    conversation = await place.store.find_conversation(place.ref.organization_id, place.ref.conversation_id)
    assert (conversation.provider, conversation.model) == ("other", "other/m")


async def test_with_the_file_as_the_store_nothing_is_stored_and_nothing_laid_out(open_place: Any) -> None:
    place = await open_place(session_store="file")
    assert await place.turn(A + TORN) is None
    assert await place.stored() is None
    place = await place.activated_again()
    await place.begin()
    assert place.file.read_bytes() == A
    place.append(B)
    await place.complete(RunStatus.CANCELLED)
    await place.begin()
    assert place.file.read_bytes() == A + B
    await place.complete()
    assert await place.session.begin_anew(place.lease, {}) == 2
    assert not place.file.exists()

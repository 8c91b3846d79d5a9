"""Files in pieces, what binds them to a turn, and a guardrail's verdict: the same on both stores."""

import hashlib

import pytest
from msgspec.structs import replace

from lobu_actors.contract.ids import new_id
from lobu_actors.store.errors import StoreRejected
from lobu_actors.store.records import Accepted, Direction, NewFile, Refused, Verdict

DAY = 86_400.0


async def put(owner, data=b"bytes", *, direction=Direction.IN, ref=None, lives=DAY, seal=True, name="a.txt"):
    """A file with its bytes in pieces of 3; gives its id."""
    file_id = new_id()
    ref = ref or owner.ref
    await owner.store.begin_file(NewFile(ref, file_id, direction, name, "text/plain", lives))
    for number in range(0, len(data), 3):
        assert await owner.store.append_chunk(ref.organization_id, file_id, number // 3, data[number : number + 3])
    if seal:
        digest = hashlib.sha256(data).hexdigest()
        assert await owner.store.seal_file(ref.organization_id, file_id, size=len(data), sha256=digest)
    return file_id


async def accept(owner, helpers, *file_ids, message_id=None, **extra):
    turn = replace(helpers.new_turn(owner.ref, message_id), file_ids=file_ids, **extra)
    return await owner.store.accept_turn(turn, max_owed=100)


async def test_a_file_is_seen_once_a_turn_has_it(owner, helpers):
    file_id = await put(owner)
    assert await owner.store.list_files(owner.ref, limit=10) == []
    assert await owner.store.find_file(owner.ref, file_id) is None
    accepted = await accept(owner, helpers, file_id)
    [file] = await owner.store.list_files(owner.ref, limit=10)
    assert (file.file_id, file.turn_id, file.name, file.size) == (file_id, accepted.turn.turn_id, "a.txt", 5)
    assert (file.direction, file.media_type, file.sha256) == (
        Direction.IN, "text/plain", hashlib.sha256(b"bytes").hexdigest(),
    )  # fmt: skip
    assert file.message_id == accepted.turn.message_id
    assert await owner.store.find_file(owner.ref, file_id) == file
    assert await owner.store.find_input_files(owner.ref, [accepted.turn.turn_id]) == [file]
    organization = owner.ref.organization_id
    assert [await owner.store.read_chunk(organization, file_id, number) for number in range(3)] == [b"byt", b"es", None]


async def test_pieces_are_taken_once_each(owner):
    file_id = await put(owner, b"abc", seal=False)
    organization = owner.ref.organization_id
    assert await owner.store.append_chunk(organization, file_id, 0, b"xyz")
    assert await owner.store.read_chunk(organization, file_id, 0) == b"abc"
    for _ in range(2):
        assert await owner.store.seal_file(organization, file_id, size=3, sha256="f" * 64)
    assert not await owner.store.append_chunk(organization, file_id, 1, b"more")
    assert not await owner.store.append_chunk(organization, "unknown", 0, b"x")
    assert not await owner.store.seal_file(organization, "unknown", size=0, sha256="f" * 64)


async def test_all_files_or_no_turn(owner, helpers):
    sealed, unsealed = await put(owner), await put(owner, seal=False)
    for wrong in (unsealed, "unknown"):
        with pytest.raises(StoreRejected):
            await accept(owner, helpers, sealed, wrong)
    assert await owner.store.load_owed(owner.lease, limit=10) == []
    assert await owner.store.list_files(owner.ref, limit=10) == []
    assert isinstance(await accept(owner, helpers, sealed), Accepted)


async def test_another_conversations_file_cannot_be_taken(owner, helpers, make_scene):
    other = await make_scene(owner.store)
    rival = await make_scene(owner.store, "rival")
    for ref in (other.ref, rival.ref):
        stolen = await put(owner, ref=ref)
        with pytest.raises(StoreRejected):
            await accept(owner, helpers, stolen)
        assert await owner.store.find_file(ref, stolen) is None


async def test_a_known_message_binds_nothing_new(owner, helpers):
    first, second = await put(owner), await put(owner)
    assert (await accept(owner, helpers, first, message_id="m")).created
    again = await accept(owner, helpers, second, message_id="m")
    assert not again.created
    assert [file.file_id for file in await owner.store.list_files(owner.ref, limit=10)] == [first]
    await owner.store.discard_files(owner.ref.organization_id, [first, second])
    assert [file.file_id for file in await owner.store.list_files(owner.ref, limit=10)] == [first]
    assert await owner.store.read_chunk(owner.ref.organization_id, second, 0) is None


async def test_a_refused_message_takes_no_file(owner, helpers):
    await owner.store.mark_closing(owner.ref)
    file_id = await put(owner)
    assert await accept(owner, helpers, file_id) == Refused("closed")
    assert await owner.store.list_files(owner.ref, limit=10) == []


async def test_what_was_never_bound_goes_when_its_time_has_come(owner, helpers):
    old, young, bound = await put(owner, lives=-1), await put(owner), await put(owner, lives=-1)
    await accept(owner, helpers, bound)
    older = await put(owner, lives=-2)
    assert await owner.store.delete_expired_files(limit=1) == 1
    organization = owner.ref.organization_id
    assert await owner.store.read_chunk(organization, older, 0) is None
    assert await owner.store.delete_expired_files(limit=9) == 1
    assert await owner.store.read_chunk(organization, old, 0) is None
    assert await owner.store.read_chunk(organization, young, 0) == b"byt"
    assert await owner.store.read_chunk(organization, bound, 0) == b"byt"


async def test_output_comes_with_the_terminal_event(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    file_id = await put(owner, direction=Direction.OUT)
    end = replace(helpers.finish(run_id, turn), file_ids=(file_id,))
    written = await owner.store.finish_run(owner.lease, end)
    [file] = await owner.store.list_files(owner.ref, limit=10)
    assert (file.file_id, file.turn_id, file.direction) == (file_id, turn.turn_id, Direction.OUT)
    assert await owner.store.finish_run(owner.lease, end) == written
    assert await owner.store.find_input_files(owner.ref, [turn.turn_id]) == []


async def test_a_lost_lease_binds_no_output(owner, helpers):
    turn = await owner.accept()
    run_id = await owner.start(turn)
    file_id = await put(owner, direction=Direction.OUT)
    await owner.store.declare_host_dead("h1")
    await owner.store.activate(owner.ref, await helpers.alive(owner.store, "h2"))
    end = replace(helpers.finish(run_id, turn), file_ids=(file_id,))
    assert await owner.store.finish_run(owner.lease, end) is None
    assert await owner.store.find_file(owner.ref, file_id) is None


async def test_a_closed_conversation_has_no_files(owner, helpers, make_scene):
    other = await make_scene(owner.store)
    kept = await put(owner, ref=other.ref)
    await owner.store.accept_turn(replace(helpers.new_turn(other.ref), file_ids=(kept,)), max_owed=9)
    file_id = await put(owner)
    turn = (await accept(owner, helpers, file_id)).turn
    await owner.store.finish_run(owner.lease, helpers.finish(await owner.start(turn), turn))
    assert await owner.store.close_conversation(owner.lease, "deleted") is not None
    assert await owner.store.list_files(owner.ref, limit=10) == []
    assert await owner.store.find_file(owner.ref, file_id) is None
    assert await owner.store.find_file(other.ref, kept) is not None


@pytest.mark.parametrize("context", [None, {"settingsUrl": "https://chat.example/ops", "n": [1, None]}])
async def test_a_verdict_stands_with_its_turn(owner, helpers, context):
    verdict = Verdict("GUARDRAIL_REJECTED", "Not here.", context)
    accepted = await accept(owner, helpers, message_id="m", verdict=verdict)
    assert accepted.turn.verdict == verdict
    assert (await accept(owner, helpers, message_id="m")).turn.verdict == verdict
    assert (await owner.store.find_turn(owner.ref, "m")).verdict == verdict
    [owed] = await owner.store.load_owed(owner.lease, limit=10)
    assert owed.verdict == verdict
    await owner.store.release(owner.lease)
    assert (await owner.store.activate(owner.ref, "h1")).owed[0].verdict == verdict

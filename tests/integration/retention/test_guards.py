"""Each guard of the retention statements on its own: what it keeps stays, also with neighbours that look the same.

Ages and what no call of a store would leave are made by hand; everything is compared row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import pytest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.records import Trimmable, Trimmed

TABLES = ("conversation", "conversation_event", "turn", "turn_marker", "run", "question", "file", "transcript_segment",
          "posted_snapshot")  # fmt: skip
DAY = 86_400.0
# A conversation of three ended turns whose session was written whole, went on, was written whole anew, and went on; an
# earlier attempt of the first turn posted what nobody needs. All is 40 days old. Ids are the same in each organization.
FILL = """
INSERT INTO organization VALUES ({o}) ON CONFLICT DO NOTHING;
INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id, next_event_seq)
VALUES ({o}, 'echo', {c}, 'ann', 4);
INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
    first_seq, status, accepted_at, ended_at)
SELECT {o}, {c} || '-t' || n, 'echo', {c}, 'm' || n, 'hi', 'enqueue', 0, n - 1, 'completed', {old}, {old}
FROM generate_series(1, 3) n;
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch, created_at)
SELECT {o}, 'echo', {c}, n, {c} || '-t' || n, 'complete', '{{}}', 1, {old} FROM generate_series(1, 3) n;
INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, attempt,
    started_at, ended_at)
SELECT {o}, {c} || '-r' || n, 'echo', {c}, ARRAY[{c} || '-t' || greatest(n, 1)], 'completed', 'h1', 1, 1, {old}, {old}
FROM generate_series(0, 4) n;
INSERT INTO posted_snapshot (organization_id, run_id, agent_id, conversation_id, data)
VALUES ({o}, {c} || '-r0', 'echo', {c}, 'x');
INSERT INTO question (organization_id, question_id, agent_id, conversation_id, run_id, turn_id, prompt)
SELECT {o}, {c} || '-q' || n, 'echo', {c}, {c} || '-r' || n, {c} || '-t' || n, 'sure?' FROM generate_series(1, 3) n;
INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, size,
    sha256) SELECT {o}, {c} || '-f' || n, 'echo', {c}, {c} || '-t' || n, 'in', 'a', 'x/y', 1, 'x'
FROM generate_series(1, 3) n;
INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq, base_length,
    total_length, sha256, data, created_at)
SELECT {o}, 'echo', {c}, 1, {c} || '-r' || n, n, base, base + 1, encode(sha256(whole::bytea), 'hex'), data::bytea, {old}
FROM (VALUES (1, 0, 'a', 'a'), (2, 1, 'ab', 'b'), (3, 0, 'c', 'c'), (4, 1, 'cd', 'd')) v (n, base, whole, data);
"""
OLD = "now() - interval '40 days'"
HERE = ConversationRef("acme", "echo", "c1")
BESIDE = (("acme", "c0"), ("acme", "c2"), ("rival", "c1"))


@pytest.fixture
def database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        for organization, name in [("acme", "c1"), *BESIDE]:
            fill(connection, organization, name)
        yield connection


def fill(database, organization: str, name: str) -> None:
    database.execute(FILL.format(o=f"'{organization}'", c=f"'{name}'", old=OLD))


def rows(database, organization: str, name: str) -> dict[str, list[tuple[object, ...]]]:
    """All that there is of one conversation."""
    return {
        table: database.execute(
            f"SELECT t::text FROM {table} t WHERE organization_id = %s AND conversation_id = %s ORDER BY 1",
            (organization, name),
        ).fetchall()
        for table in TABLES
    }


def ids(database, table: str, column: str) -> list[object]:
    """Of the conversation that is trimmed."""
    found = database.execute(
        f"SELECT {column} FROM {table} WHERE organization_id = 'acme' AND conversation_id = 'c1' ORDER BY 1"
    )
    return [value for (value,) in found]


def change(database, table: str, what: str, which: str = "true") -> None:
    database.execute(f"UPDATE {table} SET {what} WHERE organization_id = 'acme' AND conversation_id = 'c1' AND {which}")


def owe(database, organization: str, name: str, first_seqs: Sequence[int]) -> None:
    for number in first_seqs:
        database.execute(
            "INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, "
            "position, first_seq) VALUES (%s, %s, 'echo', %s, %s, 'hi', 'enqueue', 0, %s)",
            (organization, f"{name}-o{number}", name, f"o{number}", number),
        )
        database.execute(
            "INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since) "
            "VALUES (%s, %s, 'echo', %s, now(), now())",
            (organization, f"{name}-o{number}", name),
        )


async def trim(store: PostgresStore, limit: int = 100) -> Trimmed:
    return await store.trim(HERE, older_than_seconds=30 * DAY, limit=limit)


async def look(store: PostgresStore, *, max_segments: int = 9) -> list[Trimmable]:
    return await store.find_trimmable(None, older_than_seconds=30 * DAY, max_segments=max_segments, limit=9)


async def found(store: PostgresStore) -> Trimmable:
    return next(one for one in await look(store) if one.ref == HERE)


async def test_neighbours_lose_nothing(database, store) -> None:
    """Of the same tenant, and of another one with all ids the same."""
    before = [rows(database, *place) for place in BESIDE]
    first = await trim(store)
    assert (first.turns, first.events, first.questions, first.files, first.segments) == (3, 3, 3, 3, 2)
    await store.compact(HERE)
    await trim(store)
    assert [rows(database, *place) for place in BESIDE] == before
    assert ids(database, "run", "run_id") == ["c1-r4"], "the one that the snapshot is of"
    assert ids(database, "posted_snapshot", "run_id") == []
    assert await store.read_snapshot(HERE) == b"cd"


async def test_what_neighbours_owe_keeps_nothing_here(database, store) -> None:
    for place in BESIDE:
        owe(database, *place, [0])
    assert (await trim(store)).events == 3


async def test_neighbours_with_its_ids_keep_nothing_here(database, store) -> None:
    """A segment of another conversation that names a run of this one."""
    database.execute("UPDATE transcript_segment SET run_id = 'c1-r1' WHERE conversation_id = 'c2' AND seq = 1")
    await trim(store)
    await trim(store)
    assert ids(database, "run", "run_id") == ["c1-r3", "c1-r4"], "those that the snapshot is of"


async def test_what_neighbours_have_supersedes_nothing_here(database, store) -> None:
    """Neither a generation that they have begun, nor a later whole segment under the same ids."""
    database.execute(
        "UPDATE conversation SET generation = 2 WHERE (organization_id, conversation_id) <> ('acme', 'c1')"
    )
    database.execute("UPDATE transcript_segment SET base_length = 0, total_length = 1 WHERE organization_id = 'rival'")
    assert (await trim(store)).segments == 2
    assert await store.read_snapshot(HERE) == b"cd"


async def test_what_is_of_a_neighbour_goes_with_it_only(database, store) -> None:
    """An event and a question that name another conversation's turn."""
    database.execute("DELETE FROM conversation_event WHERE organization_id = 'acme' AND conversation_id = 'c2'")
    change(database, "conversation_event", "turn_id = 'c2-t1'", "seq = 1")
    database.execute("UPDATE question SET turn_id = 'c1-t2' WHERE conversation_id = 'c2'")
    before = rows(database, "acme", "c2")
    done = await trim(store)
    assert (done.events, done.turns, done.questions) == (3, 2, 2)
    assert rows(database, "acme", "c2") == before


async def test_a_busy_conversation_is_skipped_while_its_neighbours_are_idle(database, database_url, store) -> None:
    with psycopg.connect(database_url) as busy:
        busy.execute("UPDATE conversation SET model = 'm' WHERE organization_id = 'acme' AND conversation_id = 'c1'")
        assert (await trim(store)).events == 0
    assert (await trim(store)).events == 3


async def test_the_first_of_many_owed_turns_counts(database, store) -> None:
    owe(database, "acme", "c1", [2, 3])
    assert (await trim(store)).events == 1


async def test_a_turn_goes_only_with_its_end(database, store) -> None:
    """Another event of it, without its terminal one, leaves it there; so does one that says that it is under way."""
    change(database, "conversation_event", "type = 'question'", "seq = 1")
    change(database, "turn", "status = 'running', ended_at = NULL", "turn_id = 'c1-t2'")
    done = await trim(store)
    assert (done.events, done.turns, done.questions, done.files) == (3, 1, 1, 1)
    assert ids(database, "turn", "turn_id") == ["c1-t1", "c1-t2"]
    assert ids(database, "question", "question_id") == ["c1-q1", "c1-q2"]


async def test_runs_that_something_needs_stay(database, store) -> None:
    """Live ones, young ones, those of a turn that is there, and those of a segment that is there."""
    database.execute(
        "INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, "
        f"attempt, started_at, ended_at) SELECT 'acme', 'c1-' || name, 'echo', 'c1', ARRAY['gone'], status, 'h1', 1, 1,"
        f" {OLD}, ended_at FROM (VALUES ('live', 'live', NULL), ('young', 'failed', now()), ('old', 'failed', {OLD})) "
        "v (name, status, ended_at)"
    )
    database.execute(  # by the ids of a live one, another tenant has an old one
        "INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, "
        f"attempt, started_at, ended_at) VALUES ('rival', 'c1-live', 'echo', 'c1', ARRAY['gone'], 'failed', 'h1', 1, 1,"
        f" {OLD}, {OLD})"
    )
    change(database, "conversation_event", "created_at = now()", "seq = 3")
    await trim(store)
    await trim(store)
    assert ids(database, "run", "run_id") == ["c1-live", "c1-r3", "c1-r4", "c1-young"]


async def test_what_is_posted_for_a_run_stays_with_it(database, store) -> None:
    database.execute(
        "INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, "
        "attempt) VALUES ('acme', 'c1-live', 'echo', 'c1', ARRAY['gone'], 'live', 'h1', 1, 1)"
    )
    database.execute("INSERT INTO posted_snapshot (organization_id, run_id, agent_id, conversation_id, data) "
                     "VALUES ('acme', 'c1-live', 'echo', 'c1', 'x')")  # fmt: skip
    await trim(store)
    assert ids(database, "posted_snapshot", "run_id") == ["c1-live"]


async def test_runs_go_in_batches_the_oldest_first(database, store) -> None:
    database.execute("DELETE FROM transcript_segment; DELETE FROM conversation_event; DELETE FROM turn")
    for number in range(5):
        change(database, "run", f"started_at = {OLD} - interval '{number} days'", f"run_id = 'c1-r{number}'")
    done = await trim(store, limit=2)
    assert (done.runs, done.more) == (2, True)
    assert ids(database, "run", "run_id") == ["c1-r0", "c1-r1", "c1-r2"]


async def test_young_segments_stay(database, store) -> None:
    """Superseded ones too: nothing goes before its time."""
    change(database, "transcript_segment", "created_at = now()", "seq = 2")
    assert (await trim(store)).segments == 1
    assert ids(database, "transcript_segment", "seq") == [2, 3, 4]


async def test_a_whole_segment_of_an_earlier_generation_supersedes_nothing(database, store) -> None:
    """A generation that has begun with a suffix: its newest snapshot is all of it, whatever was whole before."""
    change(database, "conversation", "generation = 2")
    change(database, "transcript_segment", "generation = 2, base_length = 2, total_length = 3", "seq < 3")
    assert (await trim(store)).segments == 2
    assert ids(database, "transcript_segment", "seq") == [1, 2]


@pytest.mark.parametrize(
    ("change_of", "old"),
    [
        ("created_at = created_at", True),  # the first two are superseded, and old
        ("created_at = now()", False),
        ("base_length = 1, total_length = 2", False),  # none is whole, so none takes another's place
    ],
)
async def test_old_segments_are_found_once_a_whole_one_is_newer(database, store, change_of: str, old: bool) -> None:
    database.execute("DELETE FROM conversation_event WHERE organization_id = 'acme' AND conversation_id = 'c1'")
    change(database, "transcript_segment", change_of)
    assert (await found(store)).old is old


async def test_one_whole_segment_alone_is_not_superseded(database, store) -> None:
    """By itself, by those behind it, or by those of other conversations."""
    database.execute("DELETE FROM conversation_event WHERE organization_id = 'acme' AND conversation_id = 'c1'")
    database.execute("DELETE FROM transcript_segment WHERE organization_id = 'acme' AND conversation_id = 'c1' AND "
                     "seq < 3")  # fmt: skip
    one = await found(store)
    assert (one.old, one.segments) == (False, 2)


async def test_compaction_joins_what_is_newest_and_nothing_else(database, store) -> None:
    """Behind the newest whole segment, in the present generation."""
    done = await store.compact(HERE)
    assert (done.replaced, done.corrupt) == (3, False)
    assert await store.read_snapshot(HERE) == b"cd"
    assert ids(database, "transcript_segment", "run_id") == ["c1-r4"]


async def test_compaction_leaves_generations_that_are_yet_to_come(database, store) -> None:
    """Only the present one is looked at, and only what is before it goes."""
    change(database, "transcript_segment", "generation = 2", "seq = 3")
    change(database, "transcript_segment", "generation = 2", "seq = 4")
    done = await store.compact(HERE)
    assert (done.replaced, done.corrupt) == (1, False)
    assert await store.read_snapshot(HERE) == b"ab"
    assert ids(database, "transcript_segment", "seq") == [2, 3, 4]


async def test_compaction_looks_for_the_beginning_in_the_present_generation(database, store) -> None:
    change(database, "conversation", "generation = 2")
    change(database, "transcript_segment", "generation = 2", "seq < 3")
    done = await store.compact(HERE)
    assert (done.replaced, done.corrupt) == (3, False)
    assert await store.read_snapshot(HERE) == b"ab"


async def test_a_snapshot_of_another_length_is_left_as_it_is(database, store) -> None:
    """Though its bytes match their hash: what the owner adds next would begin at the wrong place."""
    change(database, "transcript_segment", "base_length = 5, total_length = 6", "seq = 4")
    done = await store.compact(HERE)
    assert (done.replaced, done.corrupt) == (0, True)
    assert ids(database, "transcript_segment", "seq") == [1, 2, 3, 4]

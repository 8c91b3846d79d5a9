"""Every bug that is planted in the rows is found, under the invariant that it breaks, at any size of batch."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from lobu_actors.store.pool import Pool
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.postgres.audit import CHECKS, GUARDS, Audit
from tests.conftest import admin

EVENT = (
    "INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch) "
    "SELECT 'acme', 'echo', '{conversation}', next_event_seq, {turn}, 'complete', "
    '\'{{"messageId": "{message}"}}\', 1 '
    "FROM conversation WHERE conversation_id = '{conversation}'"
)
COUNT_IT = "UPDATE conversation SET next_event_seq = next_event_seq + 1 WHERE conversation_id = '{conversation}'"
MARKER = (
    "INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since) "
    "VALUES ('acme', '{turn}', 'echo', '{conversation}', now(), now())"
)
RUN = (
    "INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt) "
    "VALUES ('acme', '{run}', 'echo', '{conversation}', ARRAY['{turn}'], 'h1', 1, 1)"
)
REVIVE = "UPDATE run SET status = 'live', ended_at = NULL, ended_epoch = NULL WHERE run_id = '{run}'"
LEASE = "UPDATE actor_lease SET {what} WHERE key = '{conversation}'"


@attrs.frozen
class Bug:
    """What is planted, what must find it, and something of the row that must be named."""

    check: str
    named: dict[str, object]
    statements: tuple[str, ...]


def event(conversation: str, turn: str | None, message: str) -> tuple[str, str]:
    quoted = "NULL" if turn is None else f"'{turn}'"
    return (
        EVENT.format(conversation=conversation, turn=quoted, message=message),
        COUNT_IT.format(conversation=conversation),
    )


def bug(check: str, *statements: str, **named: object) -> Bug:
    return Bug(check, named, statements)


BUGS = {
    "the terminal event is lost": bug(
        "turn_ended_without_one_terminal", "DELETE FROM conversation_event WHERE turn_id = 't3'", turnId="t3"
    ),
    "a second terminal event": bug(
        "turn_ended_without_one_terminal",
        "DROP INDEX conversation_event_one_terminal",
        *event("c1", "t1", "m1"),
        turnId="t1",
        terminalEvents=2,
    ),
    "an ended turn is owed": bug(
        "turn_ended_with_marker", MARKER.format(turn="t1", conversation="c1"), turnId="t1", status="completed"
    ),
    "an owed turn has no marker": bug(
        "turn_owed_without_marker", "DELETE FROM turn_marker WHERE turn_id = 't32'", turnId="t32"
    ),
    "the turn says failed, the log complete": bug(
        "turn_contradicts_terminal", "UPDATE turn SET status = 'failed' WHERE turn_id = 't1'", turnId="t1"
    ),
    "a queued turn has a terminal event": bug(
        "turn_contradicts_terminal", *event("c3", "t32", "m32"), turnId="t32", status="queued"
    ),
    "a marker of no turn": bug("marker_without_turn", MARKER.format(turn="ghost", conversation="c1"), turnId="ghost"),
    "a marker in another conversation": bug(
        "marker_without_turn",
        "UPDATE turn_marker SET conversation_id = 'c1' WHERE turn_id = 't32'",
        turnId="t32",
        conversationId="c1",
    ),
    "a terminal event whose turn is gone": bug(
        "terminal_without_turn", "DELETE FROM turn WHERE turn_id = 't4'", turnId="t4", conversationId="c1"
    ),
    "a terminal event of no turn": bug("terminal_without_turn", *event("c2", None, "m9"), conversationId="c2", seq=3),
    "a terminal event in another conversation": bug(
        "terminal_of_another_turn", *event("c2", "t32", "m32"), conversationId="c2", turnOf="c3"
    ),
    "a terminal event that tells another message": bug(
        "terminal_of_another_turn",
        "UPDATE conversation_event SET data = '{\"messageId\": \"m2\"}' WHERE turn_id = 't1'",
        tells="m2",
        messageId="m1",
    ),
    "an event of the future": bug(
        "event_of_later_epoch", "UPDATE conversation_event SET epoch = 99 WHERE turn_id = 't22'", epoch=99, leaseEpoch=2
    ),
    "a lease that forgot its epoch": bug(
        "event_of_later_epoch", LEASE.format(what="epoch = 1", conversation="c2"), epoch=2, leaseEpoch=1
    ),
    "a lease that is gone": bug(
        "event_of_later_epoch", "DELETE FROM actor_lease WHERE key = 'c4'", conversationId="c4", leaseEpoch=None
    ),
    "a write of the last owner behind the new one's": bug(
        "event_epoch_goes_back", *event("c2", "t32", "m32"), conversationId="c2", epoch=1, before=2
    ),
    "a run of the future": bug(
        "run_of_later_epoch", "UPDATE run SET epoch = 99 WHERE run_id = 'r31'", runId="r31", epoch=99
    ),
    "a run ended in the future": bug(
        "run_ended_by_no_epoch", "UPDATE run SET ended_epoch = 99 WHERE run_id = 'r1'", runId="r1", endedEpoch=99
    ),
    "a run ended before it began": bug(
        "run_ended_by_no_epoch", "UPDATE run SET ended_epoch = 1 WHERE run_id = 'r22'", runId="r22", epoch=2
    ),
    "a run ended by nobody": bug(
        "run_ended_by_no_epoch", "UPDATE run SET ended_epoch = NULL WHERE run_id = 'r2'", runId="r2", endedEpoch=None
    ),
    "a run on a host that does not hold the lease": bug(
        "run_of_another_host", "UPDATE run SET host_id = 'h2' WHERE run_id = 'r31'", hostId="h2", leaseHostId="h1"
    ),
    "two live runs": bug(
        "run_live_twice",
        "DROP INDEX run_one_live",
        RUN.format(run="r32", conversation="c3", turn="t32"),
        runId="r31",
        liveToo="r32",
    ),
    "a run that outlived its turn": bug("run_live_without_debt", REVIVE.format(run="r3"), runId="r3", turnIds=["t3"]),
    "a run that the new owner left alone": bug(
        "run_live_under_old_epoch",
        LEASE.format(what="epoch = 2, acquired_at = now() - interval '1 hour'", conversation="c3"),
        runId="r31",
        epoch=1,
        leaseEpoch=2,
    ),
    "a running turn whose run has ended": bug(
        "turn_running_without_live_run",
        "UPDATE run SET status = 'failed', ended_at = now(), ended_epoch = 1 WHERE run_id = 'r31'",
        turnId="t31",
        runId="r31",
    ),
    "a running turn that its run does not know": bug(
        "turn_running_without_live_run", "UPDATE run SET turn_ids = '{t32}' WHERE run_id = 'r31'", turnId="t31"
    ),
    "a queued turn in a run": bug(
        "turn_queued_in_run", "UPDATE turn_marker SET run_id = 'r31' WHERE turn_id = 't32'", turnId="t32", runId="r31"
    ),
    "a snapshot of a run that failed": bug(
        "segment_without_completed_run", "UPDATE run SET status = 'failed' WHERE run_id = 'r2'", runId="r2"
    ),
    "a snapshot of no run": bug("segment_without_completed_run", "DELETE FROM run WHERE run_id = 'r1'", runId="r1"),
    "a hole in a snapshot": bug(
        "segment_does_not_follow", "DELETE FROM transcript_segment WHERE run_id = 'r2'", runId="r5b", before=4
    ),
    "a snapshot without its beginning": bug(
        "segment_does_not_follow", "DELETE FROM transcript_segment WHERE run_id = 'r21'", runId="r22", before=None
    ),
    "a changed byte in a snapshot": bug(
        "snapshot_does_not_match",
        r"UPDATE transcript_segment SET data = '\x4f6e650a' WHERE run_id = 'r1'",
        conversationId="c1",
        bytes=13,
    ),
    "a changed hash": bug(
        "snapshot_does_not_match",
        "UPDATE transcript_segment SET sha256 = repeat('0', 64) WHERE run_id = 'r22'",
        conversationId="c2",
        sha256="0" * 64,
    ),
    "a snapshot committed after its reply": bug(
        "segment_without_its_reply",
        "UPDATE transcript_segment SET created_at = created_at + interval '1 hour' WHERE run_id = 'r5b'",
        runId="r5b",
    ),
    "a snapshot at another event": bug(
        "segment_without_its_reply", "UPDATE transcript_segment SET seq = 5 WHERE run_id = 'r5b'", runId="r5b", seq=5
    ),
    "a snapshot of a generation to come": bug(
        "segment_out_of_place", "UPDATE transcript_segment SET generation = 7 WHERE run_id = 'r22'", generation=7
    ),
    "a snapshot of a closed conversation": bug(
        "segment_out_of_place",
        "UPDATE conversation SET closing_at = now(), closed_at = now() WHERE conversation_id = 'c2'",
        runId="r21",
    ),
    "an event is lost": bug(
        "event_out_of_sequence", "DELETE FROM conversation_event WHERE type = 'restart'", conversationId="c1", seq=6
    ),
    "the beginning of a log is lost": bug(
        "event_out_of_sequence",
        "DELETE FROM conversation_event WHERE conversation_id = 'c1' AND seq <= 2",
        conversationId="c1",
        seq=3,
        before=None,
    ),
    "more was trimmed than is noted": bug(
        "event_out_of_sequence",
        "DELETE FROM conversation_event WHERE conversation_id = 'c1' AND seq <= 2",
        "UPDATE conversation SET trimmed_to_seq = 1 WHERE conversation_id = 'c1'",
        trimmedToSeq=1,
        seq=3,
    ),
    "a number twice": bug(
        "event_out_of_sequence",
        "ALTER TABLE conversation_event DROP CONSTRAINT conversation_event_pkey",
        "INSERT INTO conversation_event SELECT * FROM conversation_event WHERE type = 'restart'",
        conversationId="c1",
        seq=5,
        before=5,
    ),
    "events of no conversation": bug(
        "event_out_of_sequence", "DELETE FROM conversation WHERE conversation_id = 'c2'", conversationId="c2", seq=1
    ),
    "a counter that ran ahead": bug(
        "next_event_seq",
        "UPDATE conversation SET next_event_seq = next_event_seq + 3 WHERE conversation_id = 'c3'",
        conversationId="c3",
        newestSeq=1,
    ),
    "a counter that went back": bug(
        "next_event_seq",
        "UPDATE conversation SET next_event_seq = next_event_seq - 1 WHERE conversation_id = 'c1'",
        conversationId="c1",
        nextEventSeq=6,
    ),
    "the end of a log is lost": bug(
        "next_event_seq", "DELETE FROM conversation_event WHERE type = 'closed'", conversationId="c4", newestSeq=1
    ),
    "one message, two turns": bug(
        "message_accepted_twice",
        "ALTER TABLE turn DROP CONSTRAINT turn_once_per_message",
        "UPDATE turn SET message_id = 'm31' WHERE turn_id = 't32'",
        messageId="m31",
        turnIds=["t31", "t32"],
    ),
    "a guard that is not there": bug(
        "missing_guards", "DROP INDEX conversation_event_one_terminal", index="conversation_event_one_terminal"
    ),
}
INVARIANTS = {check.name: check.invariant for check in CHECKS} | {"missing_guards": "I1"}


def test_there_is_a_bug_for_every_check() -> None:
    assert {bug.check for bug in BUGS.values()} == set(INVARIANTS)
    assert len(BUGS) >= 20


async def test_a_clean_world_is_clean(world: PostgresStore, audited: Callable[..., object]) -> None:
    assert await audited() == []
    assert await audited(batch_rows=1) == []


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_found(
    world: PostgresStore, audited: Callable[..., object], database_url: str, name: str
) -> None:
    planted = BUGS[name]
    for statement in planted.statements:
        admin(database_url, statement)
    found = await audited()
    hits = [finding for finding in found if finding.check == planted.check]
    assert hits, found
    assert {finding.invariant for finding in hits} == {INVARIANTS[planted.check]}
    named = [finding for finding in hits if planted.named.items() <= finding.row.items()]
    assert named, [finding.row for finding in hits]
    in_small_steps = await audited(batch_rows=1)
    assert sorted(map(str, in_small_steps)) == sorted(map(str, found))


@pytest.mark.parametrize("index", [name for names in GUARDS.values() for name in names])
async def test_every_guard_exists(store: PostgresStore, database_url: str, index: str) -> None:
    assert admin(database_url, f"SELECT indisunique FROM pg_index WHERE indexrelid = '{index}'::regclass") == [(True,)]


async def test_rows_are_counted(world: PostgresStore, database_url: str) -> None:
    pool = Pool(database_url, size=1)
    verdicts = {verdict.invariant: verdict for verdict in await Audit(pool, batch_rows=2).run()}
    pool.close()
    assert list(verdicts) == ["I1", "I2", "I3", "I4", "I5", "I6", "I7"]
    assert verdicts["I1"].checked["turn"] == 10
    assert verdicts["I1"].checked["turn_marker"] == 2
    assert verdicts["I2"].checked["conversation_event"] == 11
    assert verdicts["I4"].checked["run"] == 9
    assert verdicts["I5"].checked["transcript_segment"] == 5
    assert verdicts["I6"].checked["conversation"] == 4
    assert verdicts["I7"].checked["turn"] == 10


async def test_a_new_owner_has_time_to_clean_up(
    world: PostgresStore, audited: Callable[..., object], database_url: str
) -> None:
    admin(database_url, LEASE.format(what="epoch = 2, acquired_at = now()", conversation="c3"))
    assert await audited() == []


async def test_many_broken_rows_are_cut(store: PostgresStore, database_url: str) -> None:
    await store.ensure_organization("acme")
    admin(
        database_url,
        "INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, "
        "position, first_seq) SELECT 'acme', 't' || n, 'echo', 'c', 'm' || n, '', 'enqueue', 0, 0 "
        "FROM generate_series(1, 500) n",
    )
    pool = Pool(database_url, size=1)
    [first, *_] = await Audit(pool, batch_rows=60).run()
    pool.close()
    assert len(first.findings) == 100
    assert first.cut

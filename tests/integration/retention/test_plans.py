"""Retention and audit are answered from indexes that narrow them down, however large the tables are."""

from __future__ import annotations

import re

import psycopg
import pytest

from lobu_actors.store.postgres.audit import CHECKS
from lobu_actors.store.queries import query

BIG = ("turn", "turn_marker", "conversation", "conversation_event", "actor_lease", "run", "transcript_segment", "file")
FILL = """
INSERT INTO organization VALUES ('acme');
INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id, next_event_seq)
SELECT 'acme', 'agent', 'c' || n, 'u', 5 FROM generate_series(0, 4999) n;
INSERT INTO actor_lease SELECT 'acme', 'conversation', 'c' || n, 'h1', 1 FROM generate_series(0, 4999) n;
INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
    first_seq, status, ended_at)
SELECT 'acme', 't' || n, 'agent', 'c' || n / 4, 'm' || n, 'hi', 'enqueue', 0, 0, 'completed', now()
FROM generate_series(0, 19999) n;
INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)
SELECT 'acme', 'o' || n, 'agent', 'c' || n, now(), now() FROM generate_series(0, 4999) n;
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch)
SELECT 'acme', 'agent', 'c' || n / 4, n % 4 + 1, 't' || n, 'complete', '{}', 1 FROM generate_series(0, 19999) n;
INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, attempt,
    ended_at)
SELECT 'acme', 'r' || n, 'agent', 'c' || n / 4, ARRAY['t' || n], 'completed', 'h1', 1, 1, now()
FROM generate_series(0, 19999) n;
INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq, base_length,
    total_length, sha256, data)
SELECT 'acme', 'agent', 'c' || n / 4, 1, 'r' || n, n % 4 + 1, n % 4, n % 4 + 1, 'x', 'x'
FROM generate_series(0, 19999) n;
INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, size,
    sha256)
SELECT 'acme', 'f' || n, 'agent', 'c' || n / 4, 't' || n, 'in', 'a', 'x/y', 1, 'x' FROM generate_series(0, 19999) n;
ANALYZE;
"""
RETENTION = (
    "find_trimmable",
    "trim_conversation_unless_busy",
    "trim_leftovers",
    "compact_snapshot_if_it_matches_its_hash",
)
# Told apart from a scan of everything by a range of keys, or by more than the tenant.
NARROW = re.compile(r"ROW\(|(conversation_id|key|turn_id|run_id|seq) ?=|host_id")


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(query("prepare_session"))
        connection.execute(FILL)
        yield connection


def plan_of(connection, name):
    numbers: dict[str, int] = {}
    text = re.sub(
        r"%\((\w+)\)s", lambda match: f"${numbers.setdefault(match[1], len(numbers) + 1)}", query(name).decode()
    )
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (GENERIC_PLAN) {text}"))


def wide_scans(plan):
    """Scans of big tables that read all of them, or all of a tenant's."""
    found = []
    lines = plan.splitlines()
    for number, line in enumerate(lines):
        match = re.search(r"(Seq Scan|Index(?: Only)? Scan.* using \S+|Bitmap Heap Scan) on (\w+)", line)
        if match and match[2] in BIG and "run_one_live" not in line:  # has only what is live
            condition = re.search(r"(?:Index|Recheck) Cond: (.*)", "\n".join(lines[number + 1 : number + 3]))
            if condition is None or not NARROW.search(condition[1]):
                found.append(line.strip())
    return found


def wide(connection, names):
    found = {name: wide_scans(plan_of(connection, name)) for name in names}
    return {name: scans for name, scans in found.items() if scans}


def test_retention_reads_little(connection):
    assert wide(connection, RETENTION) == {}


def test_an_audit_reads_its_batch_and_no_more(connection):
    connection.execute(query("prepare_audit_session"))
    assert wide(connection, [f"audit_{check.name}" for check in CHECKS]) == {}
    assert wide(connection, {check.walk.page for check in CHECKS}) == {}

"""The hot statements are answered from the right index: on 100,000 rows, and before there are any."""

import re

import psycopg
import pytest

from lobu_actors.store.queries import query

KEYS = {"organization_id": "acme", "agent_id": "agent", "conversation_id": "c77", "host_id": "h1", "epoch": 1}
HOT = {
    "accept_turn_if_open_and_not_full": {
        "turn_id": "new", "message_id": "new", "content": "x", "on_busy": "enqueue", "payload": "{}", "max_owed": 100,
        "file_ids": [], "guardrail_code": None, "guardrail_error": None,
    },
    "find_turn_by_message": {"message_id": "m77"},
    "find_owed": {"limit": 100, "older_than_seconds": 1.0},
    "read_events": {"from_seq": 50, "limit": 100},
    "load_owed_if_lease_held": {"limit": 100},
    "load_activation": {},
    "find_conversation": {},
    "append_file_chunk_if_unbound": {"file_id": "f1", "chunk_no": 0, "data": b"x"},
    "delete_files_if_unbound": {"file_ids": ["f1"]},
    "find_file": {"file_id": "f1"},
    "find_input_files": {"turn_ids": ["t1"]},
    "list_files": {"limit": 100},
    "read_file_chunk": {"file_id": "f1", "chunk_no": 0},
    "read_newest_snapshot": {},
    "start_run_if_lease_held": {
        "run_id": "r", "turn_ids": ["t1"], "attempt": 1, "worker_pid": None, "worker_started_at": None,
        "restart_events": "[]",
    },
    "finish_run_if_lease_held": {
        "run_id": "r", "turn_ids": ["t1"], "ends": "[]", "status": "completed", "turn_status": "completed",
        "error_code": None, "exit_status": None, "usage": None, "attempt": 1, "text_offset": 0, "generation": None,
        "base_length": None, "total_length": None, "sha256": None, "segment": None, "file_ids": [],
    },
}  # fmt: skip
BIG = (
    "turn",
    "turn_marker",
    "conversation",
    "conversation_event",
    "actor_lease",
    "run",
    "transcript_segment",
    "file",
    "file_chunk",
)

FILL = """
INSERT INTO organization VALUES ('acme');
INSERT INTO host (host_id, name, version, state, expires_at)
SELECT 'h' || n, 'n', '1', 'active', now() + interval '1 hour' FROM generate_series(1, 3) n;
INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id)
SELECT 'acme', 'agent', 'c' || n, 'u' FROM generate_series(1, 20000) n;
INSERT INTO actor_lease SELECT 'acme', 'conversation', 'c' || n, 'h' || 1 + n % 3, 1 FROM generate_series(1, 20000) n;
INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
    first_seq)
SELECT 'acme', 't' || n, 'agent', 'c' || n % 20000, 'm' || n, 'hello', 'enqueue', 0, 0
FROM generate_series(1, 100000) n;
INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)
SELECT 'acme', 't' || n, 'agent', 'c' || n % 20000, at, at
FROM (SELECT n, now() - n * interval '1 ms' AS at FROM generate_series(1, 100000) n) m;
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch)
SELECT 'acme', 'agent', 'c' || n % 1000, n / 1000, 't' || n, 'complete', '{}', 1 FROM generate_series(1, 100000) n;
INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, attempt,
    ended_at)
SELECT 'acme', 'r' || n, 'agent', 'c' || n % 20000, '{}', 'completed', 'h1', 1, 1, now()
FROM generate_series(1, 100000) n;
INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq, base_length,
    total_length, sha256, data)
SELECT 'acme', 'agent', 'c' || n % 20000, 1, 'r' || n, n, 0, 1, 'x', 'x' FROM generate_series(1, 100000) n;
INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, size,
    sha256)
SELECT 'acme', 'f' || n, 'agent', 'c' || n % 20000, 't' || n, 'in', 'a', 'x/y', 1, 'x'
FROM generate_series(1, 100000) n;
INSERT INTO file_chunk SELECT 'acme', 'f' || n, 0, 'x' FROM generate_series(1, 100000) n;
"""


def explain(connection, name):
    """The plan of a query as the pool's sessions would cache it: without knowing the values."""
    text = query(name).decode()
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", number, text)
    assert set(names) <= set(KEYS | HOT[name])
    rows = connection.execute(f"EXPLAIN (GENERIC_PLAN) {text}").fetchall()
    return "\n".join(row[0] for row in rows)


def scans(plan):
    """(table, index or none, conditions) of every scan of a big table."""
    found = []
    lines = plan.splitlines()
    for number, line in enumerate(lines):
        match = re.search(r"(Seq Scan|Index(?: Only)? Scan using (\S+)|Bitmap Heap Scan) on (\w+)", line)
        if match and match[3] in BIG:
            rest = "\n".join(lines[number : number + 6])
            condition = re.search(r"(?:Index|Recheck) Cond: (.*)", rest)
            found.append((match[3], match[2], condition[1] if condition else ""))
    return found


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(query("prepare_session"))
        yield connection


def check(plan):
    for table, index, condition in scans(plan):
        if "statement_timestamp" in condition:
            continue  # a range of the sweep's own indexes
        # More than the tenant: that alone would be everything that a single-tenant installation has.
        assert "organization_id =" in condition, (table, index, plan)
        assert re.search(r"(conversation_id|key|turn_id|run_id|file_id|seq) ?=", condition), (table, index, plan)


@pytest.mark.parametrize("name", HOT)
def test_on_an_empty_database(connection, name):
    check(explain(connection, name))


def test_on_100_000_rows(connection):
    connection.execute(FILL)
    connection.execute("ANALYZE")
    for name in HOT:
        check(explain(connection, name))


def test_the_sweep_stops_at_its_limit(connection):
    """Of 33,000 turns that we own ourselves it reads only as many as it may give."""
    connection.execute(FILL)
    connection.execute("ANALYZE")
    cursor = connection.execute(b"EXPLAIN (ANALYZE) " + query("find_owed"), KEYS | HOT["find_owed"])
    plan = "\n".join(row[0] for row in cursor.fetchall())
    for part in ("idle", "busy"):
        text = plan.partition(f"CTE {part}")[2]
        rows = re.search(r"actual time=\S+ rows=([\d.]+) loops", text[text.index("turn_marker_sweep") :])
        assert rows is not None
        assert float(rows[1]) < 2000, plan

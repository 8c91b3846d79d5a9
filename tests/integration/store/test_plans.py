"""Every statement of the path of a message, and every one that is asked again and again, is answered from the right
index: on 100,000 rows, and before there are any. A query that is neither tested here nor exempted fails the last test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import psycopg
import pytest

from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.postgres.audit import CHECKS
from lobu_actors.store.queries import query, query_names
from tests.conftest import admin, url_of
from tests.integration.retention.test_plans import RETENTION
from tests.integration.store.plans import FILL, ROWS, measured, numbered, told

# Conversation c3 is h1's; its turn t3 is in its live run, t20003 to t80003 wait.
KEYS: dict[str, object] = {
    "organization_id": "acme", "agent_id": "agent", "conversation_id": "c3", "host_id": "h1", "epoch": 1,
    "run_id": "live3", "turn_id": "t3", "turn_ids": ["t3"], "limit": 100, "older_than_seconds": 1, "user_id": "u",
    "attempt": 1, "generation": 1, "error_code": None, "exit_status": None, "text_offset": 0, "data": "{}",
    "file_id": "f3", "file_ids": ["f3"], "chunk_no": 0, "model": None, "provider": None,
}  # fmt: skip
_TOGETHER = range(0, 90, 3)  # h1's conversations that go with each other in one statement
_TURNS = [
    {"organization_id": "acme", "agent_id": "agent", "conversation_id": f"c{n}", "turn_id": f"new{n}",
     "message_id": "new", "content": "x", "on_busy": "enqueue", "payload": {}, "max_owed": 100, "file_ids": [f"u{n}"]}
    for n in _TOGETHER
]  # fmt: skip
_STARTS = [
    {"organization_id": "acme", "agent_id": "agent", "conversation_id": f"c{n}", "host_id": "h1", "epoch": 1,
     "run_id": f"new{n}", "turn_ids": [f"t{20_000 + n}"], "attempt": 2,
     "restart_events": [{"type": "restart"}]}
    for n in _TOGETHER
]  # fmt: skip
_FINISHES = [
    {"organization_id": "acme", "agent_id": "agent", "conversation_id": f"c{n}", "host_id": "h1", "epoch": 1,
     "run_id": f"live{n}", "ends": [{"turn_id": f"t{n}", "type": "complete", "data": {}}],
     "run": {"status": "completed", "turn_status": "completed", "turn_ids": [f"t{n}"], "file_ids": [f"u{n}"]},
     "generation": 2, "base_length": 0, "total_length": 3, "sha256": "x", "segment": "YWJj"}
    for n in _TOGETHER
]  # fmt: skip
_ENDS = json.dumps([{"turn_id": "t3", "type": "complete", "data": {}}])
_DEADLINES = [
    {"organization_id": "acme", "turn_id": f"t{n}", "run_id": f"live{n}", "seconds": 20} for n in range(0, 3000, 3)
]
_POLLER: dict[str, object] = {"kind": "poller", "key": "telegram:1"}
HOT: dict[str, dict[str, object]] = {
    # accept, claim, run, end
    "accept_turns_if_open_and_begin_runs_if_lease_held": {"asked": json.dumps(_TURNS)},
    "accept_turns_with_files_if_open_and_begin_runs_if_lease_held": {"asked": json.dumps(_TURNS)},
    "explain_refusal": {},
    "find_turn_by_message": {"message_id": "tm3"},
    "find_owed_turn": {},
    "find_conversation": {},
    "acquire_lease_unless_held_by_live_host": {"overdue": True},
    "load_activation": {},
    "load_owed_if_lease_held": {},
    "start_runs_if_lease_held": {"asked": json.dumps(_STARTS)},
    "find_started_run": {},
    "adopt_run_if_lease_held": {},
    "request_cancel_if_lease_held": {},
    "declare_host_dead_if_unlocked": {"host_id": "no-such-host"},
    "join_run_if_lease_held": {"turn_id": "t20003"},
    "leave_run_if_lease_held": {},
    "finish_runs_if_lease_held": {"asked": json.dumps(_FINISHES)},
    "finish_runs_with_files_if_lease_held": {"asked": json.dumps(_FINISHES)},
    "find_finished_run": {"ends": _ENDS},
    "requeue_run_if_lease_held": {"failures": 1, "timeline": "[]"},
    "read_turn_history": {"turn_id": "d3"},
    "find_requeued_run": {},
    "append_event_if_lease_held": {"type": "cancel", "append_key": "k"},
    "find_appended_event": {"append_key": "k"},
    "mend_markers_if_lease_held": {"code": "C", "error": "e"},
    "release_lease_if_held": {},
    # opening and closing
    "insert_conversation_if_new": {"conversation_id": "new"},
    "reopen_conversation_if_closed": {},
    "mark_closing": {},
    "mark_closing_if_lease_held": {},
    "close_conversation_if_lease_held": {},
    "find_closed_event": {},
    # hosts, sweep, deadlines
    "register_host": {
        "name": "n",
        "link_url": None,
        "version": "1",
        "ttl_seconds": 6,
        "renew_seconds": 2,
        "alone": None,
    },
    "renew_host_unless_dead": {
        "ttl_seconds": 6,
        "renew_seconds": 2,
        "state": "active",
        "runs": 1,
        "room": 5,
        "links": "{}",
    },
    "drain_host_if_alive": {},
    "release_leases_of_hosts_gone_for_long": {"older_than_seconds": -7200, "limit": 50},  # all three are
    "delete_hosts_gone_for_long_unless_they_hold_something": {"older_than_seconds": 7 * 86_400},
    "find_loads": {},
    "declare_host_dead": {},
    "find_owed": {},
    "extend_deadlines_if_lease_held": {"deadlines": json.dumps(_DEADLINES)},
    "find_overdue": {},
    "find_peers": {},
    "list_newest_hosts": {},
    "find_owner": {},
    # replay, questions, tickets
    "read_events": {"from_seq": 50},
    "find_text_start": {"seq": 50},
    "ask_question_if_lease_held": {"question_id": "new", "prompt": "what", "options": None, "worker_question_id": "q"},
    "find_asked_question": {"question_id": "q3"},
    "answer_question": {"question_id": "q3", "answer": "a", "answered_by": "u", "answer_id": "m"},
    "find_answered_question": {"answer_id": "m"},
    "find_answers": {"question_ids": ["q3", "q4"]},
    "use_ticket_if_unused": {"ticket_id": "new", "use_id": "u", "kept_seconds": 60},
    "find_api_key_if_valid": {"key_hash": "k3"},
    "find_agent": {},
    "find_default_agent": {},
    # pages that people look at
    "list_conversations_of_user": {"limit": 50, "newest": 200, "title_chars": 120},
    "list_owed_turns": {"content_chars": 20_000},
    "list_ended_turns": {"before_seq": 60, "limit": 10, "max_bytes": 1_000_000, "content_chars": 20_000},
    # sessions and files
    "read_newest_snapshot": {},
    "reset_session_if_lease_held": {"summary": None},
    "find_later_generation": {},
    "purge_snapshots_if_lease_held": {},
    "is_run_live": {},
    "post_snapshot_if_run_live": {},
    "read_posted_snapshot": {},
    "discard_posted_snapshots": {},
    "read_carried_summary": {},
    "name_provider_if_unnamed": {},
    "insert_unbound_file": {"file_id": "new", "direction": "in", "name": "a", "media_type": "x/y", "lives_seconds": 9},
    "append_file_chunk_if_unbound": {"file_id": "u3"},
    "seal_file_if_unbound": {"file_id": "u3", "size": 1, "sha256": "x"},
    "delete_files_if_unbound": {"file_ids": ["u3"]},
    "delete_expired_files": {"limit": 5},
    "find_file": {},
    "find_input_files": {},
    "list_files": {},
    "read_file_chunk": {},
    # singletons
    "acquire_singleton_unless_held_by_live_host": _POLLER,
    "is_singleton_held": _POLLER,
    "release_singleton_if_held": _POLLER,
    "begin_watchers_if_lease_held": _POLLER | {"watcher_ids": ["w3", "new"], "schedules": ["s", "s"]},
    "claim_firing_if_lease_held": _POLLER | {"watcher_id": "w3", "scheduled_at": "2026-01-01 00:00Z"},
    "confirm_firing_if_lease_held": _POLLER | {"watcher_id": "w3", "scheduled_at": "2026-01-01 00:00Z"},
    "owe_delivery_if_lease_held": _POLLER | {
        "delivery_id": "new", "message_id": "new", "address": "{}", "notice": None,
    },
    "find_owed_deliveries": {"key": "telegram:1"},
    "record_delivery_if_lease_held": _POLLER | {
        "delivery_id": "d3", "status": "delivered", "parts_sent": 1, "error": None,
    },
    "forget_deliveries_if_lease_held": _POLLER,
}  # fmt: skip
EXEMPT = {
    "no table": (
        "prepare_session", "begin", "commit", "now", "lock_migrations", "lock_agents", "prepare_audit_session",
        "notify", "listen", "hold_host_lock", "set_server_timeouts", "session_pid",
    ),
    "once, by a migration": (
        "create_schema_migration", "add_schema_migration_checksum", "add_schema_migration_oldest",
        "fill_schema_migration_checksum_if_absent",
        "has_schema_migration", "list_schema_migrations", "insert_schema_migration",
    ),
    "once, at the start of a host": (
        "insert_organization_if_new", "upsert_api_key_keeping_revocation", "apply_agents",
        "give_default_agent_where_there_is_none", "find_rivals",
    ),
    "a rollout's, on one row and the few of the hosts": (
        "begin_rollout_if_nobody_is_down", "renew_rollout_if_ours", "end_rollout_if_back", "give_rollout_up",
        "follow_rollout", "find_rollout",
    ),
    "a person's command, or the operations page's hundredth of the time; it is to show or count all": (
        "list_hosts", "list_owed", "totals", "list_conversations", "list_api_keys", "list_agents",
        "revoke_api_key_if_prefix_is_unique",
    ),
    "once, after an outage; reads what one host holds": ("find_held",),
    "counts all that is owed every five seconds, or for a page, as `find_owed` does every second": ("count_owed",),
    "an audit; reads the catalog": ("audit_missing_guards",),
}  # fmt: skip
MOST_ROWS, MOST_BLOCKS = 800, 3000
# The sweep has to look at each marker once to know that nothing is abandoned; nothing else may grow with the tables.
MORE_ROWS = {"find_owed": 3 * ROWS, "extend_deadlines_if_lease_held": 3 * len(_DEADLINES)}
MORE_BLOCKS = {"find_owed": 8 * ROWS, "extend_deadlines_if_lease_held": 30 * len(_DEADLINES)}
BIG = (
    "turn", "turn_marker", "conversation", "conversation_event", "actor_lease", "run", "transcript_segment", "file",
    "file_chunk", "question", "posted_snapshot", "used_ticket", "api_key",
    "platform_delivery",
)  # fmt: skip


def scans(plan: str) -> list[tuple[str, str | None, str]]:
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


def check(plan: str) -> None:
    for table, index, condition in scans(plan):
        if "statement_timestamp" in condition or "key_hash =" in condition:
            continue  # a range of the sweeps' own indexes; the key is looked up before its tenant is known
        if index == "actor_lease_by_host" and "host_id =" in condition:
            continue  # what one host left behind, of all tenants
        # More than the tenant: that alone would be everything that a single-tenant installation has.
        assert "organization_id =" in condition, (table, index, plan)
        narrow = r"(conversation_id|user_id|key|turn_id|run_id|file_id|seq|question_id|ticket_id|channel) ?="
        assert re.search(narrow, condition), (table, index, plan)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(query("prepare_session"))
        yield connection


@pytest.fixture(scope="module")
def full(database_server: EmbeddedServer, template_database: str) -> Iterator[psycopg.Connection]:
    """A database with 100,000 rows in each table that grows."""
    admin(database_server.url, f"CREATE DATABASE lobu_full TEMPLATE {template_database} STRATEGY file_copy")
    with psycopg.connect(url_of(database_server, "lobu_full"), autocommit=True) as connection:
        connection.execute(query("prepare_session"))
        connection.execute(FILL)
        connection.execute("VACUUM")
        yield connection
    admin(database_server.url, "DROP DATABASE lobu_full WITH (FORCE)")


@pytest.mark.parametrize("name", HOT)
def test_on_an_empty_database(connection: psycopg.Connection, name: str) -> None:
    check(told(connection, name))


@pytest.mark.parametrize("name", HOT)
def test_on_100_000_rows(full: psycopg.Connection, name: str) -> None:
    check(told(full, name))
    found = measured(full, name, KEYS | HOT[name])
    assert found.whole.isdisjoint(BIG), found.text
    assert found.rows <= MORE_ROWS.get(name, MOST_ROWS), found.text
    assert found.blocks <= MORE_BLOCKS.get(name, MOST_BLOCKS), found.text


@pytest.mark.parametrize("name", RETENTION)
def test_retention_on_100_000_rows(full: psycopg.Connection, name: str) -> None:
    found = measured(full, name, KEYS | {"max_segments": 10, "older_than_seconds": -60})
    assert found.whole.isdisjoint(BIG), found.text
    assert found.rows <= 30 * 100, "some look-ups for each row of a page"
    assert found.blocks <= 100 * 100


def test_the_sweep_stops_at_its_limit(full: psycopg.Connection) -> None:
    """Of 33,000 turns that we own ourselves it reads only as many as it may give."""
    cursor = full.execute(b"EXPLAIN (ANALYZE) " + query("find_owed"), KEYS)
    plan = "\n".join(row[0] for row in cursor.fetchall())
    rows = re.search(
        r"actual time=\S+ rows=([\d.]+) loops", plan[plan.index("turn_marker_sweep", plan.index("CTE busy")) :]
    )
    assert rows is not None
    assert float(rows[1]) < 2000, plan


def test_every_query_is_tested_or_exempted() -> None:
    audits = {f"audit_{check.name}" for check in CHECKS} | {check.walk.page for check in CHECKS}
    exempted = [name for names in EXEMPT.values() for name in names]
    accounted = [*HOT, *RETENTION, *audits, *exempted]
    assert sorted(accounted) == sorted(query_names())


def test_every_value_is_given() -> None:
    for name, values in HOT.items():
        assert set(values) <= set(numbered(name)[1]), f"{name} has no use for some values"

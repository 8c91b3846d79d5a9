"""What the planner does with a query: told without knowing the values, and measured on 100,000 rows of each table."""

from __future__ import annotations

import re
from typing import Any

import attrs
import psycopg
from psycopg import sql

from lobu_actors.store.queries import query

ROWS = 100_000
# One organization, as most installations have, so an answer by tenant alone is an answer from everything. Each of
# 20,000 conversations has a live run and four turns that wait, and what 100,000 turns that ended have left.
FILL = f"""
INSERT INTO organization VALUES ('acme');
INSERT INTO agent (organization_id, agent_id, worker, is_default) VALUES ('acme', 'agent', 'echo', true);
INSERT INTO host (host_id, name, version, state, expires_at)
SELECT 'h' || n, 'n', '1', 'active', now() + interval '1 hour' FROM generate_series(1, 3) n;
INSERT INTO api_key (key_hash, organization_id, user_id, role, label)
SELECT 'k' || n, 'acme', 'u', 'user', 'l' FROM generate_series(1, {ROWS}) n;
INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id, next_event_seq, created_at)
SELECT 'acme', 'agent', 'c' || n, 'u', 1000, now() - n * interval '1 s' FROM generate_series(0, 19999) n;
INSERT INTO actor_lease SELECT 'acme', 'conversation', 'c' || n, 'h' || 1 + n % 3, 1 FROM generate_series(0, 19999) n;
INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
    first_seq, status, ended_at)
SELECT 'acme', k || n, 'agent', 'c' || n % 20000, k || 'm' || n, 'hello', 'enqueue', 0, 0,
    CASE WHEN k = 'd' THEN 'completed' WHEN n < 20000 THEN 'running' ELSE 'queued' END,
    CASE WHEN k = 'd' THEN now() END
FROM generate_series(0, {ROWS - 1}) n, (VALUES ('t'), ('d')) k (k);
INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since, host_id, run_id,
    deadline_at)
SELECT 'acme', 't' || n, 'agent', 'c' || n % 20000, at, at, CASE WHEN n < 20000 THEN 'h' || 1 + n % 3 END,
    CASE WHEN n < 20000 THEN 'live' || n END, CASE WHEN n < 20000 THEN now() + (n - 100) * interval '1 s' END
FROM (SELECT n, now() - n * interval '1 ms' AS at FROM generate_series(0, {ROWS - 1}) n) m;
INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt)
SELECT 'acme', 'live' || n, 'agent', 'c' || n, ARRAY['t' || n], 'h' || 1 + n % 3, 1, 1 FROM generate_series(0, 19999) n;
INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, attempt,
    ended_at)
SELECT 'acme', 'r' || n, 'agent', 'c' || n % 20000, ARRAY['d' || n], 'completed', 'h1', 1, 1, now()
FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch)
SELECT 'acme', 'agent', 'c' || n % 1000, n / 1000, 'd' || n, 'complete', '{{}}', 1
FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq, base_length,
    total_length, sha256, data)
SELECT 'acme', 'agent', 'c' || n % 20000, 1, 'r' || n, n, 0, 1, 'x', 'x' FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO posted_snapshot (organization_id, run_id, agent_id, conversation_id, data)
SELECT 'acme', 'r' || n, 'agent', 'c' || n % 20000, 'x' FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO question (organization_id, question_id, agent_id, conversation_id, run_id, turn_id, prompt)
SELECT 'acme', 'q' || n, 'agent', 'c' || n % 20000, 'live' || n, 't' || n, 'what' FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, size,
    sha256, expires_at)
SELECT 'acme', k || n, 'agent', 'c' || n % 20000, CASE WHEN k = 'f' THEN 't' || n END, 'in', 'a', 'x/y', 1,
    CASE WHEN k = 'f' THEN 'x' ELSE '' END, CASE WHEN k = 'u' THEN now() + (n - 100) * interval '1 s' END
FROM generate_series(0, {ROWS - 1}) n, (VALUES ('f'), ('u')) k (k);
INSERT INTO file_chunk SELECT 'acme', 'f' || n, 0, 'x' FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO used_ticket
SELECT 'acme', 's' || n, 'u' || n, now() + (n - 100) * interval '1 s' FROM generate_series(0, {ROWS - 1}) n;
INSERT INTO watcher_state SELECT 'acme', 'w' || n, 's', now() - interval '1 day' FROM generate_series(1, 100) n;
INSERT INTO actor_lease SELECT 'acme', 'poller', 'telegram:1', 'h1', 1;
INSERT INTO platform_delivery (organization_id, channel, delivery_id, agent_id, conversation_id, message_id, address,
    status, created_at, ended_at)
SELECT 'acme', 'telegram:1', 'd' || n, 'agent', 'c' || n % 20000, 'dm' || n, '{{}}',
    CASE WHEN n < 100 THEN 'owed' ELSE 'delivered' END, now() - n * interval '1 s', CASE WHEN n >= 100 THEN now() END
FROM generate_series(0, {ROWS - 1}) n;
ANALYZE;
"""


def numbered(name: str) -> tuple[str, list[str]]:
    """A query with the server's placeholders, and the names of its parameters in their order."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", number, query(name).decode()), names


def told(connection: psycopg.Connection, name: str) -> str:
    """The plan as the pool's sessions would cache it: without knowing the values."""
    return "\n".join(row[0] for row in connection.execute(f"EXPLAIN (GENERIC_PLAN) {numbered(name)[0]}"))


@attrs.define
class Measured:
    """What one execution touched."""

    rows: int = 0  # given by scans or thrown away by their filters, also within loops
    blocks: int = 0  # of any kind, in the buffers of its costliest node with all below it
    whole: set[str] = attrs.field(factory=set)  # tables that were read from one end to the other
    text: str = ""


def measured(connection: psycopg.Connection, name: str, values: dict[str, object]) -> Measured:
    """Execute the cached plan of a query, and take back what it did."""
    text, names = numbered(name)
    arguments = sql.SQL(", ").join(sql.Literal(_as_text(values[name])) for name in names)
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE {name} AS {text}")
        try:
            call = sql.SQL("{}({})").format(sql.Identifier(name), arguments) if names else sql.Identifier(name)
            explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE ")
            [(found,)] = connection.execute(explain + call).fetchall()
        finally:
            connection.execute(f"DEALLOCATE {name}")
    result = Measured(text=repr(found))
    _add(found[0]["Plan"], result)
    return result


def _as_text(value: object) -> str | None:
    """As an untyped literal, so that the server finds the type as it does for the pool's parameters."""
    if value is None:
        return None
    if isinstance(value, list):
        return "{" + ",".join(map(str, value)) + "}"
    return str(value)


def _add(node: dict[str, Any], result: Measured) -> None:
    if "Relation Name" in node and node["Node Type"] != "ModifyTable":
        thrown = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        result.rows += round((node["Actual Rows"] + thrown) * node["Actual Loops"])
        if node["Node Type"] == "Seq Scan" and node["Actual Loops"]:
            result.whole.add(node["Relation Name"])
    blocks = node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0)
    result.blocks = max(result.blocks, blocks)
    for child in node.get("Plans", ()):
        _add(child, result)

-- By when the owner of a running turn will have done something about it. Written in one statement for all turns of a
-- host; read by sweepers, which take over from an owner that is alive and yet does nothing.

-- name: extend_deadlines_if_lease_held
-- Moves the deadlines of markers that are still in the runs in which this host says they are, in conversations whose
-- lease it has: until a successor has settled what it found, the markers name the host before. What somebody has locked
-- is left out, a lease that is just being taken too: one of them must not hold up all others.
WITH free AS MATERIALIZED (
    SELECT m.organization_id, m.turn_id, d.seconds, d.provider_failed_code
    FROM jsonb_to_recordset(%(deadlines)s::jsonb) AS d (organization_id text, turn_id text, run_id text,
        seconds float8, provider_failed_code text)
    JOIN turn_marker m ON m.organization_id = d.organization_id AND m.turn_id = d.turn_id AND m.run_id = d.run_id
    JOIN actor_lease l ON l.organization_id = m.organization_id AND l.kind = 'conversation'
        AND l.key = m.conversation_id
    WHERE m.host_id = %(host_id)s AND l.host_id = %(host_id)s
    FOR SHARE OF l SKIP LOCKED
    FOR NO KEY UPDATE OF m SKIP LOCKED
)
UPDATE turn_marker m SET deadline_at = clock_timestamp() + make_interval(secs => free.seconds),
    provider_failed_code = free.provider_failed_code
FROM free
WHERE m.organization_id = free.organization_id AND m.turn_id = free.turn_id
RETURNING m.turn_id;

-- name: find_overdue
-- Conversations with a running turn whose deadline has passed, the longest passed first.
SELECT organization_id, agent_id, conversation_id FROM turn_marker
WHERE deadline_at <= statement_timestamp() AND run_id IS NOT NULL
GROUP BY organization_id, agent_id, conversation_id
ORDER BY min(deadline_at) LIMIT %(limit)s;

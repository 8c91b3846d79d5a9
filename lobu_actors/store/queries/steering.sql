-- A message that joins a run which is under way. Guarded as everything the owner writes; see actors.sql.

-- name: join_run_if_lease_held
-- Makes a queued turn part of a live run: (lease held, joined). Asked again after it joined, it says so again.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), live AS MATERIALIZED (
    SELECT r.run_id, r.attempt FROM held, run r
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
    FOR NO KEY UPDATE OF r
), moved AS (
    UPDATE turn t SET status = 'running', attempt = live.attempt, started_at = clock_timestamp(), error_code = NULL
    FROM live
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = %(turn_id)s AND t.agent_id = %(agent_id)s
        AND t.conversation_id = %(conversation_id)s AND t.status = 'queued'
    RETURNING t.turn_id
), routed AS (
    UPDATE turn_marker m SET host_id = %(host_id)s, run_id = %(run_id)s
    FROM moved
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = moved.turn_id
), joined AS (
    UPDATE run r SET turn_ids = array_append(r.turn_ids, moved.turn_id)
    FROM moved
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s
)
SELECT EXISTS (SELECT 1 FROM held), EXISTS (SELECT 1 FROM moved) OR EXISTS (
    SELECT 1 FROM live, turn_marker m
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = %(turn_id)s AND m.run_id = live.run_id);

-- name: leave_run_if_lease_held
-- Takes turns out of a live run, but for its first, and queues them again: (lease held). Asked again it does nothing.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), live AS MATERIALIZED (
    SELECT r.run_id, r.turn_ids[1] AS first FROM held, run r
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
    FOR NO KEY UPDATE OF r
), owed AS (
    UPDATE turn_marker m SET host_id = NULL, run_id = NULL, deadline_at = NULL
    FROM live
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = ANY (%(turn_ids)s::text[])
        AND m.agent_id = %(agent_id)s AND m.conversation_id = %(conversation_id)s AND m.run_id = live.run_id
        AND m.turn_id <> live.first
    RETURNING m.turn_id
), moved AS (
    UPDATE turn t SET status = 'queued', attempt = attempt + 1
    FROM owed
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = ANY (%(turn_ids)s::text[])
        AND t.turn_id = owed.turn_id
), remaining AS (
    UPDATE run r SET turn_ids = ARRAY(
        SELECT x.turn_id FROM unnest(r.turn_ids) WITH ORDINALITY AS x (turn_id, no)
        WHERE x.turn_id NOT IN (SELECT turn_id FROM owed) ORDER BY x.no)
    FROM live
    WHERE r.organization_id = %(organization_id)s AND r.run_id = live.run_id AND EXISTS (SELECT 1 FROM owed)
)
SELECT EXISTS (SELECT 1 FROM held);

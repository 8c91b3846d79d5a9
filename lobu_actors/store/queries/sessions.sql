-- Sessions: beginning a new one, and snapshots that workers post themselves. Guards as in actors.sql.

-- name: reset_session_if_lease_held
-- Begins the next generation and deletes what was stored of all before it. The generation that the caller knows is part
-- of the guard: asked again after an unknown outcome, this changes nothing.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), begun AS (
    UPDATE conversation c SET generation = c.generation + 1, last_activity_at = clock_timestamp(),
        carried_summary = %(summary)s, provider = coalesce(%(provider)s, c.provider),
        model = coalesce(%(model)s, c.model)
    FROM held
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s AND c.generation = %(generation)s
    RETURNING c.generation
), purged AS (
    DELETE FROM transcript_segment s USING begun
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s
), dropped AS (
    DELETE FROM posted_snapshot p USING begun
    WHERE p.organization_id = %(organization_id)s AND p.agent_id = %(agent_id)s
        AND p.conversation_id = %(conversation_id)s
)
SELECT generation FROM begun;

-- name: find_later_generation
-- The generation that an earlier call began, while the lease is held: nobody else begins one under it.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
)
SELECT c.generation FROM held, conversation c
WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
    AND c.conversation_id = %(conversation_id)s AND c.generation > %(generation)s;

-- name: purge_snapshots_if_lease_held
-- Deletes what is stored of a conversation's sessions; the number of segments, no row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), purged AS (
    DELETE FROM transcript_segment s USING held
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s
    RETURNING 1
), dropped AS (
    DELETE FROM posted_snapshot p USING held
    WHERE p.organization_id = %(organization_id)s AND p.agent_id = %(agent_id)s
        AND p.conversation_id = %(conversation_id)s
)
SELECT (SELECT count(*) FROM purged) FROM held;

-- name: is_run_live
-- Whether a run of this conversation is under way.
SELECT 1 FROM run
WHERE organization_id = %(organization_id)s AND run_id = %(run_id)s AND agent_id = %(agent_id)s
    AND conversation_id = %(conversation_id)s AND status = 'live';

-- name: post_snapshot_if_run_live
-- Keeps a worker's snapshot until its run ends; no row when the run has one already or is not live. No lock: a run that
-- ends at this moment has been read for what was posted before, and a row that comes too late is never read.
INSERT INTO posted_snapshot (organization_id, run_id, agent_id, conversation_id, data)
SELECT %(organization_id)s, r.run_id, %(agent_id)s, %(conversation_id)s, %(data)s::bytea FROM run r
WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
    AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
ON CONFLICT DO NOTHING
RETURNING run_id;

-- name: read_posted_snapshot
-- What was posted for a run.
SELECT data FROM posted_snapshot
WHERE organization_id = %(organization_id)s AND run_id = %(run_id)s AND agent_id = %(agent_id)s
    AND conversation_id = %(conversation_id)s;

-- name: discard_posted_snapshots
-- Forgets what was posted for runs of a conversation that are over: it is stored by now, or never will be.
DELETE FROM posted_snapshot p
WHERE p.organization_id = %(organization_id)s AND p.agent_id = %(agent_id)s
    AND p.conversation_id = %(conversation_id)s AND NOT EXISTS (
        SELECT 1 FROM run r
        WHERE r.organization_id = p.organization_id AND r.run_id = p.run_id AND r.agent_id = p.agent_id
            AND r.conversation_id = p.conversation_id AND r.status = 'live');

-- name: read_carried_summary
-- What the runs of the present generation are told of the one before it.
SELECT carried_summary FROM conversation
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s;

-- name: name_provider_if_unnamed
-- Notes which provider the present session is with.
UPDATE conversation SET provider = %(provider)s
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s
    AND provider IS NULL;

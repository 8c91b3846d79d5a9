-- What a live run needs to change hands: its worker may outlive the supervisor that had begun it.

-- name: adopt_run_if_lease_held
-- Moves a live run and its markers to the lease's host and epoch, without the deadlines that its earlier owner promised;
-- again the same when it is repeated. Gives the run's age, the newest event that came before its text, its questions, and the code with
-- which its provider had failed; no row when the lease is lost or it is not live.
-- An event that was written while text ran says where in it; what says nothing, or begins it anew, came before.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), adopted AS (
    UPDATE run r SET host_id = %(host_id)s, epoch = %(epoch)s
    FROM held
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
    RETURNING r.started_at, r.turn_ids
), routed AS (
    UPDATE turn_marker m SET host_id = %(host_id)s, deadline_at = NULL
    FROM adopted
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = ANY (adopted.turn_ids)
        AND m.agent_id = %(agent_id)s AND m.conversation_id = %(conversation_id)s AND m.run_id = %(run_id)s
    RETURNING m.provider_failed_code
)
SELECT extract(epoch FROM clock_timestamp() - adopted.started_at)::float8, coalesce((
    SELECT e.seq FROM conversation_event e
    WHERE e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
        AND e.conversation_id = %(conversation_id)s AND (e.attempt IS NULL OR e.type = 'restart')
    ORDER BY e.seq DESC LIMIT 1), 0), (
    SELECT coalesce(jsonb_agg(jsonb_build_array(q.question_id, q.worker_question_id, q.answer, EXISTS (
        SELECT 1 FROM conversation_event e
        WHERE e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
            AND e.conversation_id = %(conversation_id)s AND e.turn_id = q.turn_id AND e.type = 'question-answered'
            AND e.data ->> 'questionId' = q.question_id)) ORDER BY q.created_at), '[]')
    FROM question q
    WHERE q.organization_id = %(organization_id)s AND q.agent_id = %(agent_id)s
        AND q.conversation_id = %(conversation_id)s AND q.run_id = %(run_id)s),
    (SELECT max(provider_failed_code) FROM routed)
FROM adopted;

-- name: request_cancel_if_lease_held
-- Notes that a live run is to end as cancelled, whoever owns it then. No row when the lease is lost or it is not live.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
)
UPDATE run r SET cancel_requested = true
FROM held
WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
    AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
RETURNING r.run_id;

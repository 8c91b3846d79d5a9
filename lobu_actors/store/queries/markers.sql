-- Markers: what they owe, and those that are at odds with other rows. Guarded as everything the owner writes; see
-- actors.sql.

-- name: load_owed_if_lease_held
-- Owed turns, oldest first, each behind what its marker may be at odds with: the turn's conversation, and whether the log
-- has its end. One row of NULLs when nothing is owed, none when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
)
SELECT m.turn_id, t.agent_id, t.conversation_id, EXISTS (
        SELECT 1 FROM conversation_event e
        WHERE e.organization_id = %(organization_id)s AND e.turn_id = m.turn_id
            AND e.type IN ('complete', 'agent-error', 'cancelled')),
    t.turn_id, t.message_id, t.content, t.on_busy, t.payload::text, t.status, t.attempt, t.failures, t.position,
    t.first_seq, t.accepted_at, t.error_code, t.guardrail_code, t.guardrail_error, t.guardrail_context::text
FROM held
LEFT JOIN (
    SELECT turn_id, accepted_at FROM turn_marker
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s
    ORDER BY accepted_at, turn_id LIMIT %(limit)s
) m ON true
LEFT JOIN LATERAL (
    SELECT * FROM turn WHERE organization_id = %(organization_id)s AND turn_id = m.turn_id LIMIT 1
) t ON true
ORDER BY m.accepted_at, m.turn_id;

-- name: mend_markers_if_lease_held
-- Puts right what some markers contradict; ends nothing and writes no event. A turn whose terminal event is in the log is
-- owed no more. A marker of another conversation's turn goes home to it. A turn whose row is missing gets one: a marker
-- is only ever written together with its turn, so it proves that there was one. The last two come to be turns with a
-- verdict: never run, and ended by the terminal statement. No row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), wrong AS MATERIALIZED (
    SELECT m.turn_id, m.accepted_at, t.agent_id, t.conversation_id, e.type
    FROM held CROSS JOIN turn_marker m
    LEFT JOIN LATERAL (
        SELECT agent_id, conversation_id FROM turn
        WHERE organization_id = %(organization_id)s AND turn_id = m.turn_id LIMIT 1
    ) t ON true
    LEFT JOIN LATERAL (
        SELECT type FROM conversation_event
        WHERE organization_id = %(organization_id)s AND turn_id = m.turn_id
            AND type IN ('complete', 'agent-error', 'cancelled') LIMIT 1
    ) e ON true
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = ANY (%(turn_ids)s::text[])
        AND m.agent_id = %(agent_id)s AND m.conversation_id = %(conversation_id)s
    FOR UPDATE OF m
), settled AS (
    DELETE FROM turn_marker m USING wrong w
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = w.turn_id AND w.type IS NOT NULL
    RETURNING w.turn_id, w.type
), ended AS (
    UPDATE turn t SET ended_at = clock_timestamp(), status = CASE s.type
        WHEN 'complete' THEN 'completed' WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END
    FROM settled s
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = s.turn_id AND t.status IN ('queued', 'running')
), returned AS (
    UPDATE turn_marker m SET agent_id = w.agent_id, conversation_id = w.conversation_id
    FROM wrong w
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = w.turn_id AND w.type IS NULL
        AND (w.agent_id <> %(agent_id)s OR w.conversation_id <> %(conversation_id)s)
    RETURNING m.turn_id
), refused AS (
    UPDATE turn t SET guardrail_code = %(code)s, guardrail_error = %(error)s, guardrail_context = NULL
    FROM returned r
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = r.turn_id
), restored AS (
    INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, position,
        first_seq, accepted_at, guardrail_code, guardrail_error)
    SELECT c.organization_id, w.turn_id, c.agent_id, c.conversation_id, w.turn_id, '', 'enqueue', 0,
        c.next_event_seq - 1, w.accepted_at, %(code)s, %(error)s
    FROM wrong w, conversation c
    WHERE w.type IS NULL AND w.agent_id IS NULL AND c.organization_id = %(organization_id)s
        AND c.agent_id = %(agent_id)s AND c.conversation_id = %(conversation_id)s
    ON CONFLICT DO NOTHING
)
SELECT 1 FROM held;

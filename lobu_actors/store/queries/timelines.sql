-- What is known about when a turn did what. Read now and then by people, never by the program itself.

-- name: read_turn_history
-- A turn, its attempts with what was marked, and its durable events without what was written in them. Times are
-- milliseconds since the epoch. Runs name their turns, so they are looked for among those that began between the turn's
-- acceptance and its end. One that it joined while it ran was the last that had begun before.
WITH t AS MATERIALIZED (
    SELECT turn_id, message_id, status, error_code, first_seq, accepted_at, ended_at
    FROM turn
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s AND turn_id = %(turn_id)s
), terminal AS MATERIALIZED (
    SELECT e.seq FROM t, conversation_event e
    WHERE e.organization_id = %(organization_id)s AND e.turn_id = %(turn_id)s
        AND e.type IN ('complete', 'agent-error', 'cancelled')
        AND e.agent_id = %(agent_id)s AND e.conversation_id = %(conversation_id)s
), ran AS MATERIALIZED (
    SELECT r.run_id FROM t, run r
    WHERE r.organization_id = %(organization_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status <> 'live'
        AND r.started_at >= t.accepted_at AND r.started_at <= coalesce(t.ended_at, 'infinity')
        AND t.turn_id = ANY (r.turn_ids)
    UNION
    SELECT r.run_id FROM t, run r
    WHERE r.organization_id = %(organization_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live' AND t.turn_id = ANY (r.turn_ids)
    UNION
    SELECT r.run_id FROM t, LATERAL (
        SELECT b.run_id, b.turn_ids FROM run b
        WHERE b.organization_id = %(organization_id)s AND b.agent_id = %(agent_id)s
            AND b.conversation_id = %(conversation_id)s AND b.status <> 'live' AND b.started_at < t.accepted_at
        ORDER BY b.started_at DESC LIMIT 1
    ) r
    WHERE t.turn_id = ANY (r.turn_ids)
)
SELECT t.turn_id, t.message_id, t.status, t.error_code, extract(epoch FROM t.accepted_at)::float8 * 1000,
    extract(epoch FROM t.ended_at)::float8 * 1000, (
        SELECT coalesce(jsonb_agg(jsonb_build_array(r.run_id, r.attempt, r.status, r.host_id, r.epoch,
            extract(epoch FROM r.started_at)::float8 * 1000, extract(epoch FROM r.ended_at)::float8 * 1000,
            r.error_code, r.exit_status, coalesce(r.timeline, '[]')) ORDER BY r.started_at, r.run_id), '[]')
        FROM ran JOIN run r ON r.organization_id = %(organization_id)s AND r.run_id = ran.run_id
    ), (
        SELECT coalesce(jsonb_agg(jsonb_build_array(e.type, extract(epoch FROM e.created_at)::float8 * 1000,
            CASE e.type WHEN 'cancel' THEN e.data ->> 'stage' WHEN 'restart' THEN e.data ->> 'reason'
                WHEN 'question' THEN e.data ->> 'questionId' WHEN 'question-answered' THEN e.data ->> 'questionId' END
            ) ORDER BY e.seq), '[]')
        FROM conversation_event e
        WHERE e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
            AND e.conversation_id = %(conversation_id)s AND e.seq > t.first_seq
            AND e.seq <= coalesce((SELECT seq FROM terminal), 9223372036854775807) AND e.turn_id = t.turn_id
    )
FROM t;

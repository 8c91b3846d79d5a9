-- What a page that people look at lists: conversations, and the turns of one.

-- name: list_conversations_of_user
-- A user's open conversations, of the newest so many those that were active last; each with its first message.
SELECT c.agent_id, c.conversation_id, c.user_id, c.created_at, greatest(c.last_activity_at, o.newest), c.generation,
    c.next_event_seq - 1, c.closing_at IS NOT NULL, c.closed_at IS NOT NULL, c.model, c.provider, o.queued, o.running,
    left(t.content, %(title_chars)s::integer)
FROM (
    SELECT * FROM (
        SELECT * FROM conversation
        WHERE organization_id = %(organization_id)s AND user_id = %(user_id)s AND closing_at IS NULL
        ORDER BY created_at DESC LIMIT %(newest)s::bigint
    ) n
    ORDER BY last_activity_at DESC, conversation_id LIMIT %(limit)s
) c
CROSS JOIN LATERAL (
    SELECT max(m.accepted_at) AS newest, count(*) FILTER (WHERE m.run_id IS NULL) AS queued,
        count(m.run_id) AS running
    FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id
) o
LEFT JOIN LATERAL (
    SELECT e.turn_id FROM conversation_event e
    WHERE e.organization_id = c.organization_id AND e.agent_id = c.agent_id
        AND e.conversation_id = c.conversation_id AND e.turn_id IS NOT NULL
    ORDER BY e.seq LIMIT 1
) said ON true
LEFT JOIN LATERAL (
    SELECT m.turn_id FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id
    ORDER BY m.accepted_at, m.turn_id LIMIT 1
) owed ON said.turn_id IS NULL
LEFT JOIN turn t ON t.organization_id = c.organization_id AND t.turn_id = coalesce(said.turn_id, owed.turn_id)
ORDER BY greatest(c.last_activity_at, o.newest) DESC, c.conversation_id;

-- name: list_owed_turns
-- The turns of a conversation that have no terminal event yet, in the order of their acceptance.
SELECT t.turn_id, t.message_id, left(t.content, %(content_chars)s::integer), t.status, t.attempt, t.accepted_at, t.first_seq,
    t.error_code
FROM turn_marker m
JOIN turn t ON t.organization_id = m.organization_id AND t.turn_id = m.turn_id
WHERE m.organization_id = %(organization_id)s AND m.agent_id = %(agent_id)s
    AND m.conversation_id = %(conversation_id)s
ORDER BY m.accepted_at, m.turn_id LIMIT %(limit)s;

-- name: list_ended_turns
-- The turns whose terminal events are the newest before a seq, newest first, with their questions; fewer than the limit
-- when they are large, never none for that.
WITH ended AS MATERIALIZED (
    SELECT e.*, row_number() OVER newest AS nth, sum(pg_column_size(e.data)) OVER newest AS bytes
    FROM (
        SELECT seq, turn_id, type, data FROM conversation_event
        WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
            AND conversation_id = %(conversation_id)s AND seq < %(before_seq)s
            AND type IN ('complete', 'agent-error', 'cancelled')
        ORDER BY seq DESC LIMIT %(limit)s
    ) e
    WINDOW newest AS (ORDER BY e.seq DESC)
)
SELECT t.turn_id, t.message_id, left(t.content, %(content_chars)s::integer), t.status, t.attempt, t.accepted_at, t.first_seq,
    t.error_code, e.seq, e.type, e.data, asked.events
FROM ended e
JOIN turn t ON t.organization_id = %(organization_id)s AND t.turn_id = e.turn_id
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(x.data ORDER BY x.seq), '[]'::jsonb) AS events FROM conversation_event x
    WHERE x.organization_id = %(organization_id)s AND x.agent_id = %(agent_id)s
        AND x.conversation_id = %(conversation_id)s AND x.seq > t.first_seq AND x.seq < e.seq
        AND x.turn_id = t.turn_id AND x.type IN ('question', 'question-answered')
) asked
WHERE e.nth = 1 OR e.bytes <= %(max_bytes)s
ORDER BY e.seq DESC;

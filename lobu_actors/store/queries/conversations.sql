-- What an edge does with conversations.

-- name: insert_conversation_if_new
-- Makes a conversation; no row when one of that id is there, under whichever agent.
INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id, model, provider)
VALUES (%(organization_id)s, %(agent_id)s, %(conversation_id)s, %(user_id)s, %(model)s, %(provider)s)
ON CONFLICT DO NOTHING
RETURNING agent_id, conversation_id, user_id, created_at, last_activity_at, generation, next_event_seq - 1,
    false AS closing, false AS closed, model, provider, 0::bigint AS queued, 0::bigint AS running;

-- name: reopen_conversation_if_closed
-- Opens a closed conversation of the same agent and user again, in the next generation.
UPDATE conversation
SET generation = generation + 1, closing_at = NULL, closed_at = NULL, last_activity_at = clock_timestamp(),
    model = coalesce(%(model)s, model), provider = coalesce(%(provider)s, provider), carried_summary = NULL
WHERE organization_id = %(organization_id)s AND conversation_id = %(conversation_id)s
    AND agent_id = %(agent_id)s AND user_id = %(user_id)s AND closed_at IS NOT NULL;

-- name: find_conversation
-- One conversation of an organization with its counts; a marker without a run is queued.
SELECT c.agent_id, c.conversation_id, c.user_id, c.created_at, greatest(c.last_activity_at, o.newest), c.generation,
    c.next_event_seq - 1, c.closing_at IS NOT NULL, c.closed_at IS NOT NULL, c.model, c.provider, o.queued, o.running
FROM conversation c
CROSS JOIN LATERAL (
    SELECT max(m.accepted_at) AS newest, count(*) FILTER (WHERE m.run_id IS NULL) AS queued,
        count(m.run_id) AS running
    FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id
) o
WHERE c.organization_id = %(organization_id)s AND c.conversation_id = %(conversation_id)s;

-- name: list_conversations
-- An organization's conversations, newest first.
SELECT c.agent_id, c.conversation_id, c.user_id, c.created_at, greatest(c.last_activity_at, o.newest), c.generation,
    c.next_event_seq - 1, c.closing_at IS NOT NULL, c.closed_at IS NOT NULL, c.model, c.provider, o.queued, o.running
FROM (
    SELECT * FROM conversation WHERE organization_id = %(organization_id)s
    ORDER BY created_at DESC, conversation_id LIMIT %(limit)s
) c
CROSS JOIN LATERAL (
    SELECT max(m.accepted_at) AS newest, count(*) FILTER (WHERE m.run_id IS NULL) AS queued,
        count(m.run_id) AS running
    FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id
) o
ORDER BY c.created_at DESC, c.conversation_id;

-- name: accept_turn_if_open_and_not_full
-- Inserts turn and marker, and makes the files that came with it the turn's: all of them or no turn. No row when refused
-- or when the message is known.
-- KEY SHARE waits for nobody but mark_closing, and mark_closing (FOR UPDATE) waits for it: once a conversation is
-- marked, no accept that missed the mark is still under way, so its close cannot overlook a turn.
WITH open AS MATERIALIZED (
    SELECT next_event_seq FROM conversation
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s AND closing_at IS NULL
    FOR KEY SHARE
), owed AS MATERIALIZED (
    SELECT count(*) AS n FROM (
        SELECT 1 FROM turn_marker
        WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
            AND conversation_id = %(conversation_id)s
        LIMIT %(max_owed)s
    ) m
), brought AS MATERIALIZED (
    SELECT file_id FROM file
    WHERE organization_id = %(organization_id)s AND file_id = ANY (%(file_ids)s::text[])
        AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s AND turn_id IS NULL AND sha256 <> ''
    FOR UPDATE
), made AS (
    INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, payload,
        position, first_seq, guardrail_code, guardrail_error, guardrail_context)
    SELECT %(organization_id)s, %(turn_id)s, %(agent_id)s, %(conversation_id)s, %(message_id)s, %(content)s,
        %(on_busy)s, %(payload)s::jsonb, owed.n, open.next_event_seq - 1, %(guardrail_code)s, %(guardrail_error)s,
        %(guardrail_context)s::jsonb
    FROM open, owed WHERE owed.n < %(max_owed)s AND (owed.n = 0 OR %(on_busy)s <> 'reject')
        AND (SELECT count(*) FROM brought) = cardinality(%(file_ids)s::text[])
    ON CONFLICT DO NOTHING
    RETURNING position, first_seq, accepted_at
), marked AS (
    INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)
    SELECT %(organization_id)s, %(turn_id)s, %(agent_id)s, %(conversation_id)s, accepted_at, accepted_at FROM made
), bound AS (
    UPDATE file f SET turn_id = %(turn_id)s, expires_at = NULL
    FROM made
    WHERE f.organization_id = %(organization_id)s AND f.file_id = ANY (%(file_ids)s::text[])
)
SELECT position, first_seq, accepted_at FROM made;

-- name: explain_refusal
-- Why accept_turn wrote nothing: is the conversation there, is it open, how much does it owe.
SELECT c.closing_at IS NOT NULL, (
    SELECT count(*) FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id)
FROM conversation c
WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
    AND c.conversation_id = %(conversation_id)s;

-- name: find_turn_by_message
-- A turn by the message id that the client gave.
SELECT turn_id, message_id, content, on_busy, payload::text, status, attempt, failures, position, first_seq,
    accepted_at, error_code, guardrail_code, guardrail_error, guardrail_context::text
FROM turn
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
    AND conversation_id = %(conversation_id)s AND message_id = %(message_id)s;

-- name: find_owed_turn
-- The oldest turn that a conversation owes.
SELECT t.turn_id, t.message_id, t.content, t.on_busy, t.payload::text, t.status, t.attempt, t.failures, t.position,
    t.first_seq, t.accepted_at, t.error_code, t.guardrail_code, t.guardrail_error, t.guardrail_context::text
FROM turn_marker m
JOIN turn t ON t.organization_id = m.organization_id AND t.turn_id = m.turn_id
    AND t.agent_id = m.agent_id AND t.conversation_id = m.conversation_id
WHERE m.organization_id = %(organization_id)s AND m.agent_id = %(agent_id)s
    AND m.conversation_id = %(conversation_id)s
ORDER BY m.accepted_at, m.turn_id LIMIT 1;

-- name: mark_closing
-- Refuses new messages from now on; waits for accepts that are under way. Says whether there is such a conversation.
WITH locked AS MATERIALIZED (
    SELECT closing_at FROM conversation
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s
    FOR UPDATE
), marked AS (
    UPDATE conversation SET closing_at = clock_timestamp()
    FROM locked
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s AND locked.closing_at IS NULL
)
SELECT 1 FROM locked;

-- name: read_events
-- Committed events from a seq on, in order.
SELECT seq, turn_id, type, data, run_id, attempt, text_offset
FROM conversation_event
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
    AND conversation_id = %(conversation_id)s AND seq >= %(from_seq)s
ORDER BY seq LIMIT %(limit)s;

-- name: find_text_start
-- The newest event, up to a seq, behind which a text began anew: nothing ran at it, or it says so.
SELECT seq FROM conversation_event
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
    AND conversation_id = %(conversation_id)s AND seq <= %(seq)s AND (attempt IS NULL OR type = 'restart')
ORDER BY seq DESC LIMIT 1;

-- name: read_newest_snapshot
-- The newest whole segment of the current generation and the suffixes behind it, in order of their commits.
SELECT s.base_length, s.total_length, s.sha256, s.data
FROM conversation c
JOIN transcript_segment s USING (organization_id, agent_id, conversation_id, generation)
WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
    AND c.conversation_id = %(conversation_id)s
    AND s.seq >= coalesce((
        SELECT max(b.seq) FROM transcript_segment b
        WHERE b.organization_id = c.organization_id AND b.agent_id = c.agent_id
            AND b.conversation_id = c.conversation_id AND b.generation = c.generation AND b.base_length = 0
    ), 0)
ORDER BY s.seq;

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

-- name: accept_turns_if_open_and_begin_runs_if_lease_held
-- Inserts turns and markers, of one conversation each, and makes the files that came with a turn its own: all of them or
-- no turn. No row for what is refused or known. Where a run is given and nothing else is owed, it begins with the turn, if
-- its lease is held: FOR SHARE as in all that an owner writes.
-- KEY SHARE waits for nobody but mark_closing, and mark_closing (FOR UPDATE) waits for it: once a conversation is
-- marked, no accept that missed the mark is still under way, so its close cannot overlook a turn.
WITH open AS MATERIALIZED (
    SELECT t.*, c.next_event_seq - 1 AS first_seq
    FROM json_to_recordset(%(asked)s::json) AS t (organization_id text, agent_id text, conversation_id text,
        turn_id text, message_id text, content text, on_busy text, payload jsonb, max_owed bigint, file_ids text[],
        guardrail_code text, guardrail_error text, guardrail_context jsonb,
        host_id text, epoch bigint, run_id text, worker_pid integer, worker_started_at float8)
    JOIN conversation c ON c.organization_id = t.organization_id AND c.agent_id = t.agent_id
        AND c.conversation_id = t.conversation_id
    WHERE c.closing_at IS NULL
    FOR KEY SHARE OF c
), held AS MATERIALIZED (
    SELECT t.organization_id, t.turn_id
    FROM open t
    JOIN actor_lease l ON l.organization_id = t.organization_id AND l.kind = 'conversation'
        AND l.key = t.conversation_id AND l.host_id = t.host_id AND l.epoch = t.epoch
    FOR SHARE OF l
), brought AS MATERIALIZED (
    SELECT f.organization_id, f.file_id, t.turn_id
    FROM open t CROSS JOIN unnest(t.file_ids) AS w (file_id)
    JOIN file f ON f.organization_id = t.organization_id AND f.file_id = w.file_id
        AND f.agent_id = t.agent_id AND f.conversation_id = t.conversation_id
    WHERE f.turn_id IS NULL AND f.sha256 <> ''
    FOR UPDATE OF f
), made AS (
    INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, payload,
        position, first_seq, guardrail_code, guardrail_error, guardrail_context, status, started_at)
    SELECT t.organization_id, t.turn_id, t.agent_id, t.conversation_id, t.message_id, t.content, t.on_busy, t.payload,
        owed.n, t.first_seq, t.guardrail_code, t.guardrail_error, t.guardrail_context,
        CASE WHEN begins.now THEN 'running' ELSE 'queued' END, CASE WHEN begins.now THEN clock_timestamp() END
    FROM open t
    CROSS JOIN LATERAL (
        SELECT count(*) AS n FROM (
            SELECT 1 FROM turn_marker m
            WHERE m.organization_id = t.organization_id AND m.agent_id = t.agent_id
                AND m.conversation_id = t.conversation_id
            LIMIT t.max_owed
        ) m
    ) owed
    CROSS JOIN LATERAL (
        SELECT owed.n = 0 AND EXISTS (
            SELECT 1 FROM held h WHERE h.organization_id = t.organization_id AND h.turn_id = t.turn_id) AS now
    ) begins
    WHERE owed.n < t.max_owed AND (owed.n = 0 OR t.on_busy <> 'reject')
        AND (SELECT count(*) FROM brought b WHERE b.turn_id = t.turn_id) = cardinality(t.file_ids)
    ON CONFLICT DO NOTHING
    RETURNING organization_id, turn_id, agent_id, conversation_id, position, first_seq, accepted_at,
        status = 'running' AS begun
), started AS (
    INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt, worker_pid,
        worker_started_at)
    SELECT t.organization_id, t.run_id, t.agent_id, t.conversation_id, ARRAY[t.turn_id], t.host_id, t.epoch, 1,
        t.worker_pid, t.worker_started_at
    FROM made JOIN open t ON t.organization_id = made.organization_id AND t.turn_id = made.turn_id
    WHERE made.begun
), marked AS (
    INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since, host_id,
        run_id)
    SELECT made.organization_id, made.turn_id, made.agent_id, made.conversation_id, made.accepted_at, made.accepted_at,
        CASE WHEN made.begun THEN t.host_id END, CASE WHEN made.begun THEN t.run_id END
    FROM made JOIN open t ON t.organization_id = made.organization_id AND t.turn_id = made.turn_id
), bound AS (
    UPDATE file f SET turn_id = made.turn_id, expires_at = NULL
    FROM made JOIN brought b ON b.organization_id = made.organization_id AND b.turn_id = made.turn_id
    WHERE f.organization_id = b.organization_id AND f.file_id = b.file_id
)
SELECT organization_id, conversation_id, position, first_seq, accepted_at, begun FROM made;

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

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

-- name: accept_turns_with_files_if_open_and_begin_runs_if_lease_held
-- without the brackets: accept_turns_if_open_and_begin_runs_if_lease_held
-- Inserts turns and markers, of one conversation each, and makes the files that came with a turn its own: all of them or
-- no turn. No row for what is refused or known. Where a run is given and nothing else is owed, it begins with the turn, if
-- its lease is held: FOR SHARE as in all that an owner writes.
-- KEY SHARE waits for nobody but mark_closing, and mark_closing (FOR UPDATE) waits for it: once a conversation is
-- marked, no accept that missed the mark is still under way, so its close cannot overlook a turn.
-- Values stay in their JSON until they are written: each column that goes from step to step costs in every step.
WITH open AS MATERIALIZED (
    SELECT x.asked, c.organization_id, c.agent_id, c.conversation_id, x.asked ->> 'turn_id' AS turn_id,
        c.next_event_seq - 1 AS first_seq
    FROM jsonb_array_elements(%(asked)s::jsonb) AS x (asked)
    JOIN conversation c ON c.organization_id = x.asked ->> 'organization_id'
        AND c.agent_id = x.asked ->> 'agent_id' AND c.conversation_id = x.asked ->> 'conversation_id'
    WHERE c.closing_at IS NULL
    FOR KEY SHARE OF c
), made AS (
    INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, payload,
        position, first_seq, guardrail_code, guardrail_error, guardrail_context, status, accepted_at, started_at)
    SELECT f.organization_id, f.turn_id, f.agent_id, f.conversation_id, f.asked ->> 'message_id',
        f.asked ->> 'content', f.asked ->> 'on_busy', f.asked -> 'payload', f.owed, f.first_seq,
        f.asked ->> 'guardrail_code', f.asked ->> 'guardrail_error', f.asked -> 'guardrail_context',
        CASE WHEN f.begins THEN 'running' ELSE 'queued' END, f.at, CASE WHEN f.begins THEN f.at END
    FROM (
        SELECT t.*, owed.n AS owed, clock_timestamp() AS at, owed.n = 0 AND EXISTS (
            SELECT 1 FROM actor_lease l
            WHERE l.organization_id = t.organization_id AND l.kind = 'conversation' AND l.key = t.conversation_id
                AND l.host_id = t.asked ->> 'host_id' AND l.epoch = (t.asked ->> 'epoch')::bigint
            FOR SHARE) AS begins
        FROM open t
        CROSS JOIN LATERAL (
            SELECT count(*) AS n FROM (
                SELECT 1 FROM turn_marker m
                WHERE m.organization_id = t.organization_id AND m.agent_id = t.agent_id
                    AND m.conversation_id = t.conversation_id
                LIMIT (t.asked ->> 'max_owed')::bigint
            ) m
        ) owed
        WHERE owed.n < (t.asked ->> 'max_owed')::bigint AND (owed.n = 0 OR t.asked ->> 'on_busy' <> 'reject')
        -- [
            AND jsonb_array_length(t.asked -> 'file_ids') = (
                SELECT count(*) FROM (
                    SELECT 1 FROM jsonb_array_elements_text(t.asked -> 'file_ids') AS w (file_id)
                    JOIN file f ON f.organization_id = t.organization_id AND f.file_id = w.file_id
                        AND f.agent_id = t.agent_id AND f.conversation_id = t.conversation_id
                    WHERE f.turn_id IS NULL AND f.sha256 <> ''
                    FOR UPDATE OF f
                ) brought)
        -- ]
    ) f
    ON CONFLICT DO NOTHING
    RETURNING organization_id, turn_id, agent_id, conversation_id, position, first_seq, accepted_at,
        status = 'running' AS begun
), started AS (
    INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt, worker_pid,
        worker_started_at)
    SELECT made.organization_id, t.asked ->> 'run_id', made.agent_id, made.conversation_id, ARRAY[made.turn_id],
        t.asked ->> 'host_id', (t.asked ->> 'epoch')::bigint, 1, (t.asked ->> 'worker_pid')::integer,
        (t.asked ->> 'worker_started_at')::float8
    FROM made JOIN open t ON t.organization_id = made.organization_id AND t.turn_id = made.turn_id
    WHERE made.begun
), marked AS (
    INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since, host_id,
        run_id)
    SELECT made.organization_id, made.turn_id, made.agent_id, made.conversation_id, made.accepted_at, made.accepted_at,
        CASE WHEN made.begun THEN t.asked ->> 'host_id' END, CASE WHEN made.begun THEN t.asked ->> 'run_id' END
    FROM made JOIN open t ON t.organization_id = made.organization_id AND t.turn_id = made.turn_id
-- [
), bound AS (
    UPDATE file f SET turn_id = t.turn_id, expires_at = NULL
    FROM open t CROSS JOIN jsonb_array_elements_text(t.asked -> 'file_ids') AS w (file_id)
    WHERE f.organization_id = t.organization_id AND f.file_id = w.file_id AND f.agent_id = t.agent_id
        AND f.conversation_id = t.conversation_id
        AND EXISTS (SELECT 1 FROM made WHERE made.organization_id = t.organization_id AND made.turn_id = t.turn_id)
-- ]
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

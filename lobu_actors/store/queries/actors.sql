-- What the owner of a conversation does. Every write begins with `held`: the lease row, locked FOR SHARE where host and
-- epoch are still the caller's. A takeover (an UPDATE of that row) waits for this statement's commit, or has come first
-- and then `held` is empty and nothing happens: every further step depends on it. A check without the lock is NOT safe
-- under READ COMMITTED.

-- name: acquire_lease_unless_held_by_live_host
-- Takes the lease under the next epoch; says what was there: conversation, own live host row, new epoch, holder before.
-- Hosts are judged at the time of the statement's snapshot: a wait for the row's lock makes no live host look dead. Nor
-- does an outage of the database: who has just missed renewals itself cannot tell who is gone from who has missed them too.
WITH me AS MATERIALIZED (
    SELECT host_id, judges_from <= statement_timestamp() AND judges_until > statement_timestamp() AS judges FROM host
    WHERE host_id = %(host_id)s AND state <> 'dead' AND expires_at > statement_timestamp()
), here AS MATERIALIZED (
    SELECT 1 FROM conversation
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s
), taken AS (
    INSERT INTO actor_lease AS l (organization_id, kind, key, host_id, epoch)
    SELECT %(organization_id)s, 'conversation', %(conversation_id)s, me.host_id, 1 FROM me, here
    ON CONFLICT (organization_id, kind, key) DO UPDATE
    SET host_id = EXCLUDED.host_id, epoch = l.epoch + 1, acquired_at = clock_timestamp()
    WHERE l.host_id IS NULL OR l.host_id = EXCLUDED.host_id OR NOT EXISTS (
        SELECT 1 FROM host h
        WHERE h.host_id = l.host_id AND h.state <> 'dead'
            AND (h.expires_at > statement_timestamp() OR NOT (SELECT judges FROM me)))
        OR %(overdue)s AND EXISTS (
        SELECT 1 FROM turn_marker m
        WHERE m.organization_id = %(organization_id)s AND m.agent_id = %(agent_id)s
            AND m.conversation_id = %(conversation_id)s AND m.run_id IS NOT NULL
            AND m.deadline_at <= statement_timestamp())
    RETURNING epoch
)
SELECT EXISTS (SELECT 1 FROM here), EXISTS (SELECT 1 FROM me), (SELECT epoch FROM taken), (
    SELECT l.host_id FROM actor_lease l
    WHERE l.organization_id = %(organization_id)s AND l.kind = 'conversation' AND l.key = %(conversation_id)s);

-- name: load_activation
-- What a fresh actor needs to know besides its queue: conversation, agent, newest snapshot's mark, live run.
SELECT c.agent_id, c.conversation_id, c.user_id, c.created_at, greatest(c.last_activity_at, o.newest), c.generation,
    c.next_event_seq - 1, c.closing_at IS NOT NULL, c.closed_at IS NOT NULL, c.model, c.provider, o.queued, o.running,
    a.organization_id, a.agent_id, a.worker, a.is_default, a.owner_user_id, a.model, a.settings, a.policy, a.disabled,
    s.generation, s.run_id, s.total_length, s.sha256,
    r.run_id, r.turn_ids, r.status, r.host_id, r.epoch, r.attempt, r.worker_pid, r.worker_started_at,
    r.cancel_requested
FROM conversation c
CROSS JOIN LATERAL (
    SELECT max(m.accepted_at) AS newest, count(*) FILTER (WHERE m.run_id IS NULL) AS queued,
        count(m.run_id) AS running
    FROM turn_marker m
    WHERE m.organization_id = c.organization_id AND m.agent_id = c.agent_id
        AND m.conversation_id = c.conversation_id
) o
LEFT JOIN agent a ON a.organization_id = c.organization_id AND a.agent_id = c.agent_id
LEFT JOIN LATERAL (
    SELECT t.generation, t.run_id, t.total_length, t.sha256 FROM transcript_segment t
    WHERE t.organization_id = c.organization_id AND t.agent_id = c.agent_id
        AND t.conversation_id = c.conversation_id AND t.generation = c.generation
    ORDER BY t.seq DESC LIMIT 1
) s ON true
LEFT JOIN run r ON r.organization_id = c.organization_id AND r.agent_id = c.agent_id
    AND r.conversation_id = c.conversation_id AND r.status = 'live'
WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
    AND c.conversation_id = %(conversation_id)s;

-- name: start_runs_if_lease_held
-- Begins runs, of one conversation each, of turns that are all queued (owed, and in no run), routes their markers,
-- appends `restart` events. No row for what is refused.
WITH held AS MATERIALIZED (
    SELECT r.*
    FROM json_to_recordset(%(asked)s::json) AS r (organization_id text, agent_id text, conversation_id text,
        host_id text, epoch bigint, run_id text, turn_ids text[], attempt integer, worker_pid integer,
        worker_started_at float8, restart_events jsonb)
    JOIN actor_lease l ON l.organization_id = r.organization_id AND l.kind = 'conversation'
        AND l.key = r.conversation_id AND l.host_id = r.host_id AND l.epoch = r.epoch
    FOR SHARE OF l
), queued AS MATERIALIZED (
    SELECT r.organization_id, r.run_id, m.turn_id
    FROM held r CROSS JOIN unnest(r.turn_ids) AS w (turn_id)
    JOIN turn_marker m ON m.organization_id = r.organization_id AND m.turn_id = w.turn_id AND m.agent_id = r.agent_id
        AND m.conversation_id = r.conversation_id
    WHERE m.run_id IS NULL
    FOR NO KEY UPDATE OF m
), started AS (
    INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt, worker_pid,
        worker_started_at)
    SELECT r.organization_id, r.run_id, r.agent_id, r.conversation_id, r.turn_ids, r.host_id, r.epoch, r.attempt,
        r.worker_pid, r.worker_started_at
    FROM held r
    WHERE cardinality(r.turn_ids) = (
        SELECT count(*) FROM queued q WHERE q.organization_id = r.organization_id AND q.run_id = r.run_id)
    ON CONFLICT DO NOTHING
    RETURNING organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt
), moved AS (
    UPDATE turn t SET status = 'running', attempt = s.attempt, started_at = clock_timestamp(), error_code = NULL
    FROM started s CROSS JOIN unnest(s.turn_ids) AS w (turn_id)
    WHERE t.organization_id = s.organization_id AND t.turn_id = w.turn_id
), routed AS (
    UPDATE turn_marker m SET host_id = s.host_id, run_id = s.run_id
    FROM started s CROSS JOIN unnest(s.turn_ids) AS w (turn_id)
    WHERE m.organization_id = s.organization_id AND m.turn_id = w.turn_id AND m.agent_id = s.agent_id
        AND m.conversation_id = s.conversation_id
), restart AS MATERIALIZED (
    SELECT s.*, x.data, x.no, s.turn_ids[x.no] AS turn_id
    FROM started s JOIN held r ON r.organization_id = s.organization_id AND r.run_id = s.run_id
    CROSS JOIN jsonb_array_elements(r.restart_events) WITH ORDINALITY AS x (data, no)
), seqs AS (
    UPDATE conversation c SET next_event_seq = next_event_seq + n.n
    FROM (
        SELECT organization_id, agent_id, conversation_id, count(*) AS n FROM restart
        GROUP BY organization_id, agent_id, conversation_id
    ) n
    WHERE c.organization_id = n.organization_id AND c.agent_id = n.agent_id AND c.conversation_id = n.conversation_id
    RETURNING c.organization_id, c.conversation_id, c.next_event_seq - n.n AS first
), events AS (
    INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, run_id,
        attempt, text_offset, epoch)
    SELECT x.organization_id, x.agent_id, x.conversation_id, seqs.first + x.no - 1, x.turn_id, 'restart', x.data,
        x.run_id, x.attempt, 0, x.epoch
    FROM seqs JOIN restart x ON x.organization_id = seqs.organization_id AND x.conversation_id = seqs.conversation_id
    RETURNING organization_id, conversation_id, seq, turn_id, type, data, run_id, attempt, text_offset
)
SELECT s.organization_id, s.conversation_id, e.seq, e.turn_id, e.type, e.data, e.run_id, e.attempt, e.text_offset
FROM started s
LEFT JOIN events e ON e.organization_id = s.organization_id AND e.conversation_id = s.conversation_id
ORDER BY e.seq;

-- name: find_started_run
-- What start_run wrote earlier under this very lease, while that run lives and the lease is held.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
)
SELECT e.seq, e.turn_id, e.type, e.data, e.run_id, e.attempt, e.text_offset
FROM held
JOIN run r ON r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
    AND r.conversation_id = %(conversation_id)s AND r.status = 'live' AND r.host_id = %(host_id)s
    AND r.epoch = %(epoch)s
LEFT JOIN conversation_event e ON e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
    AND e.conversation_id = %(conversation_id)s
    AND e.run_id = r.run_id AND e.type = 'restart' AND e.seq > (
        SELECT min(t.first_seq) FROM turn t
        WHERE t.organization_id = %(organization_id)s AND t.turn_id = ANY (%(turn_ids)s::text[]))
ORDER BY e.seq;

-- name: finish_runs_with_files_if_lease_held
-- without the brackets: finish_runs_if_lease_held
-- The terminal statement, for runs of one conversation each. The markers decide: what is taken here is ended here, and
-- nothing else is. Without a run id, a predecessor's live run ends with the last of its turns.
-- A run is live until it has ended; asked for by its status, the planner would read all of them from their small index.
-- What the turns of a run have in common goes from step to step as one value, `run`. Several turns of a run end it with
-- the same values, so whichever comes first may.
WITH held AS MATERIALIZED (
    SELECT x.no, x.asked, l.organization_id, x.asked ->> 'agent_id' AS agent_id, l.key AS conversation_id, l.epoch,
        x.asked ->> 'run_id' AS run_id
    FROM jsonb_array_elements(%(asked)s::jsonb) WITH ORDINALITY AS x (asked, no)
    JOIN actor_lease l ON l.organization_id = x.asked ->> 'organization_id' AND l.kind = 'conversation'
        AND l.key = x.asked ->> 'conversation_id' AND l.host_id = x.asked ->> 'host_id'
        AND l.epoch = (x.asked ->> 'epoch')::bigint
    FOR SHARE OF l
), wanted AS MATERIALIZED (
    SELECT h.no AS run_no, h.organization_id, h.agent_id, h.conversation_id, h.epoch, h.run_id,
        h.asked -> 'run' AS run, x.turn, x.no
    FROM held h CROSS JOIN jsonb_array_elements(h.asked -> 'ends') WITH ORDINALITY AS x (turn, no)
    WHERE h.run_id IS NULL OR EXISTS (
        SELECT 1 FROM run r
        WHERE r.organization_id = h.organization_id AND r.run_id = h.run_id AND r.agent_id = h.agent_id
            AND r.conversation_id = h.conversation_id AND r.ended_at IS NULL
        FOR NO KEY UPDATE)
), taken AS (
    DELETE FROM turn_marker m USING wanted w
    WHERE m.organization_id = w.organization_id AND m.turn_id = w.turn ->> 'turn_id' AND m.agent_id = w.agent_id
        AND m.conversation_id = w.conversation_id
    RETURNING w.run_no, w.organization_id, w.agent_id, w.conversation_id, w.epoch, w.run_id, w.run, w.turn, w.no,
        m.turn_id, m.run_id AS was_in
), ended AS (
    UPDATE turn t SET status = k.run ->> 'turn_status', error_code = k.run ->> 'error_code',
        ended_at = clock_timestamp()
    FROM taken k
    WHERE t.organization_id = k.organization_id AND t.turn_id = k.turn_id
), run_ended AS (
    UPDATE run r SET status = k.run ->> 'status', error_code = k.run ->> 'error_code',
        exit_status = k.run ->> 'exit_status', usage = k.run -> 'usage', timeline = k.run -> 'timeline',
        ended_at = clock_timestamp(), ended_epoch = k.epoch
    FROM taken k
    WHERE r.organization_id = k.organization_id AND r.run_id = coalesce(k.run_id, k.was_in)
        AND r.agent_id = k.agent_id AND r.conversation_id = k.conversation_id AND r.ended_at IS NULL
        AND (k.run_id IS NOT NULL OR NOT EXISTS (
            SELECT 1 FROM turn_marker o
            WHERE o.organization_id = k.organization_id AND o.agent_id = k.agent_id
                AND o.conversation_id = k.conversation_id
                AND o.run_id = k.was_in AND NOT k.run -> 'turn_ids' ? o.turn_id))
), seqs AS (
    UPDATE conversation c SET next_event_seq = next_event_seq + n.n, last_activity_at = clock_timestamp()
    FROM held h CROSS JOIN LATERAL (SELECT count(*) AS n FROM taken k WHERE k.run_no = h.no) n
    WHERE n.n > 0 AND c.organization_id = h.organization_id AND c.agent_id = h.agent_id
        AND c.conversation_id = h.conversation_id
    RETURNING h.no, c.next_event_seq - n.n AS first, n.n = jsonb_array_length(h.asked -> 'ends') AS whole
), segment AS (
    INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq, base_length,
        total_length, sha256, data)
    SELECT h.organization_id, h.agent_id, h.conversation_id, (h.asked ->> 'generation')::integer, h.run_id, seqs.first,
        (h.asked ->> 'base_length')::bigint, (h.asked ->> 'total_length')::bigint, h.asked ->> 'sha256',
        decode(h.asked ->> 'segment', 'base64')
    FROM seqs JOIN held h ON h.no = seqs.no
    WHERE h.asked ->> 'generation' IS NOT NULL
-- [
), bound AS (
    UPDATE file f SET turn_id = k.turn_id, expires_at = NULL
    FROM taken k CROSS JOIN jsonb_array_elements_text(k.run -> 'file_ids') AS x (file_id)
    WHERE f.organization_id = k.organization_id AND f.file_id = x.file_id AND f.turn_id IS NULL
        AND f.sha256 <> '' AND f.agent_id = k.agent_id AND f.conversation_id = k.conversation_id
        AND k.no = (SELECT min(b.no) FROM taken b WHERE b.run_no = k.run_no)
-- ]
)
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, run_id, attempt,
    text_offset, epoch)
SELECT k.organization_id, k.agent_id, k.conversation_id, seqs.first + CASE WHEN seqs.whole THEN k.no - 1 ELSE (
    SELECT count(*) FROM taken b WHERE b.run_no = k.run_no AND b.no < k.no) END, k.turn_id, k.turn ->> 'type',
    k.turn -> 'data', k.run_id, (k.run ->> 'attempt')::integer, (k.run ->> 'text_offset')::bigint, k.epoch
FROM seqs JOIN taken k ON k.run_no = seqs.no
RETURNING organization_id, conversation_id, seq, turn_id, type, data, run_id, attempt, text_offset;

-- name: find_finished_run
-- Terminal events that an earlier call with the same arguments wrote. The epoch names one activation of one actor, so
-- same turn, type, data, run and epoch can only be that call's.
SELECT e.seq, e.turn_id, e.type, e.data, e.run_id, e.attempt, e.text_offset
FROM jsonb_to_recordset(%(ends)s::jsonb) AS w (turn_id text, type text, data jsonb)
JOIN conversation_event e ON e.organization_id = %(organization_id)s AND e.turn_id = w.turn_id AND e.type = w.type
    AND e.data = w.data
WHERE e.turn_id = ANY (%(turn_ids)s::text[]) AND e.type IN ('complete', 'agent-error', 'cancelled')
    AND e.agent_id = %(agent_id)s AND e.conversation_id = %(conversation_id)s AND e.epoch = %(epoch)s
    AND e.run_id IS NOT DISTINCT FROM %(run_id)s::text
ORDER BY e.seq;

-- name: requeue_run_if_lease_held
-- Ends a live run as `requeued` and puts those of its turns that are still owed back into the queue.
-- Without a run id: whatever run of this conversation is live.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), ended AS (
    UPDATE run r SET status = 'requeued', error_code = %(error_code)s, exit_status = %(exit_status)s,
        timeline = %(timeline)s::jsonb, ended_at = clock_timestamp(), ended_epoch = %(epoch)s
    FROM held
    WHERE r.organization_id = %(organization_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
        AND (%(run_id)s::text IS NULL OR r.run_id = %(run_id)s)
    RETURNING r.run_id
), fit AS MATERIALIZED (
    SELECT 1 FROM held WHERE %(run_id)s::text IS NULL
    UNION ALL SELECT 1 FROM ended WHERE %(run_id)s::text IS NOT NULL
), owed AS (
    UPDATE turn_marker m SET host_id = NULL, run_id = NULL, deadline_at = NULL, provider_failed_code = NULL
    FROM fit
    WHERE m.organization_id = %(organization_id)s AND m.turn_id = ANY (%(turn_ids)s::text[])
        AND m.agent_id = %(agent_id)s AND m.conversation_id = %(conversation_id)s
    RETURNING m.turn_id
), moved AS (
    UPDATE turn t SET status = 'queued', attempt = attempt + 1, failures = failures + %(failures)s,
        error_code = %(error_code)s
    FROM owed
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = ANY (%(turn_ids)s::text[])
        AND t.turn_id = owed.turn_id AND t.status = 'running'
    RETURNING t.turn_id, t.message_id, t.content, t.on_busy, t.payload::text, t.status, t.attempt, t.failures, t.position,
    t.first_seq, t.accepted_at, t.error_code, t.guardrail_code, t.guardrail_error, t.guardrail_context::text
), now AS (
    SELECT * FROM moved
    UNION ALL
    SELECT t.turn_id, t.message_id, t.content, t.on_busy, t.payload::text, t.status, t.attempt, t.failures, t.position,
    t.first_seq, t.accepted_at, t.error_code, t.guardrail_code, t.guardrail_error, t.guardrail_context::text
    FROM owed JOIN turn t ON t.organization_id = %(organization_id)s AND t.turn_id = owed.turn_id
    WHERE t.turn_id = ANY (%(turn_ids)s::text[]) AND t.status = 'queued'
)
SELECT now.* FROM fit LEFT JOIN now ON true
ORDER BY now.accepted_at, now.turn_id;

-- name: find_requeued_run
-- The turns, as they now are, of a run that was requeued under this very lease (without a run id: of any run).
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
)
SELECT t.turn_id, t.message_id, t.content, t.on_busy, t.payload::text, t.status, t.attempt, t.failures, t.position,
    t.first_seq, t.accepted_at, t.error_code, t.guardrail_code, t.guardrail_error, t.guardrail_context::text
FROM held
LEFT JOIN (
    turn_marker m JOIN turn t ON t.organization_id = m.organization_id AND t.turn_id = m.turn_id
        AND t.turn_id = ANY (%(turn_ids)s::text[])
) ON m.organization_id = %(organization_id)s AND m.turn_id = ANY (%(turn_ids)s::text[])
    AND m.conversation_id = %(conversation_id)s
WHERE %(run_id)s::text IS NULL OR EXISTS (
    SELECT 1 FROM run r
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.status = 'requeued'
        AND r.ended_epoch = %(epoch)s AND r.conversation_id = %(conversation_id)s)
ORDER BY t.accepted_at, t.turn_id;

-- name: append_event_if_lease_held
-- Appends one durable event that ends nothing; the same event again under the same lease violates its unique key.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), seqs AS (
    UPDATE conversation c SET next_event_seq = next_event_seq + 1, last_activity_at = clock_timestamp()
    FROM held
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s
    RETURNING c.next_event_seq - 1 AS first
)
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, run_id, attempt,
    text_offset, epoch, append_key)
SELECT %(organization_id)s, %(agent_id)s, %(conversation_id)s, seqs.first, %(turn_id)s, %(type)s, %(data)s::jsonb,
    %(run_id)s, %(attempt)s, %(text_offset)s, %(epoch)s, %(append_key)s
FROM seqs
RETURNING seq, turn_id, type, data, run_id, attempt, text_offset;

-- name: find_appended_event
-- The event that an earlier call with the same arguments appended under this very lease.
SELECT seq, turn_id, type, data, run_id, attempt, text_offset
FROM conversation_event
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s
    AND epoch = %(epoch)s AND append_key = %(append_key)s;

-- name: mark_closing_if_lease_held
-- As mark_closing, by the owner.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), locked AS MATERIALIZED (
    SELECT c.closing_at FROM held, conversation c
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s
    FOR UPDATE OF c
), marked AS (
    UPDATE conversation SET closing_at = clock_timestamp()
    FROM locked
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s AND locked.closing_at IS NULL
)
SELECT 1 FROM locked;

-- name: close_conversation_if_lease_held
-- Closes a conversation that is marked and owes nothing: purges its snapshots, appends `closed`. The mark was committed
-- before this statement's snapshot, so every accept that it let through is in that snapshot too. Marked and not closed
-- is asked by number: asked as conversation_to_close has it, that index would be read whole for this one row.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), closed AS (
    UPDATE conversation c
    SET closed_at = clock_timestamp(), next_event_seq = next_event_seq + 1, last_activity_at = clock_timestamp()
    FROM held
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s AND num_nonnulls(c.closing_at, c.closed_at) = 1
        AND NOT EXISTS (
            SELECT 1 FROM turn_marker m
            WHERE m.organization_id = %(organization_id)s AND m.agent_id = %(agent_id)s
                AND m.conversation_id = %(conversation_id)s)
    RETURNING c.next_event_seq - 1 AS first
), unbound AS (
    UPDATE file f SET turn_id = NULL, expires_at = clock_timestamp() FROM closed
    WHERE f.organization_id = %(organization_id)s AND f.agent_id = %(agent_id)s
        AND f.conversation_id = %(conversation_id)s
), purged AS (
    DELETE FROM transcript_segment s USING closed
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s
), dropped AS (
    DELETE FROM posted_snapshot p USING closed
    WHERE p.organization_id = %(organization_id)s AND p.agent_id = %(agent_id)s
        AND p.conversation_id = %(conversation_id)s
)
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, type, data, epoch)
SELECT %(organization_id)s, %(agent_id)s, %(conversation_id)s, closed.first, 'closed', %(data)s::jsonb, %(epoch)s
FROM closed
RETURNING seq, turn_id, type, data, run_id, attempt, text_offset;

-- name: find_closed_event
-- The `closed` event that this very lease wrote to a conversation that is closed.
SELECT e.seq, e.turn_id, e.type, e.data, e.run_id, e.attempt, e.text_offset
FROM conversation c
JOIN conversation_event e ON e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
    AND e.conversation_id = %(conversation_id)s AND e.seq = c.next_event_seq - 1
WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
    AND c.conversation_id = %(conversation_id)s
    AND c.closed_at IS NOT NULL AND e.type = 'closed' AND e.epoch = %(epoch)s;

-- name: release_lease_if_held
-- Gives the lease up; the row and its epoch stay.
UPDATE actor_lease SET host_id = NULL
WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
    AND host_id = %(host_id)s AND epoch = %(epoch)s;

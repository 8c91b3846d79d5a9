-- The invariants, asked of the rows. A walk goes over one table by its key, a batch at a time; each check looks at the
-- rows of one batch in one statement, so what it compares is of one moment, on a busy system too. A batch is what comes
-- behind the key (a1, a2, ...), up to the key (u1, u2, ...) and with it. Every row that a check gives is a broken
-- promise: organization, conversation, and what else there is to say about it.

-- name: prepare_audit_session
-- Row by row from index to index, whatever the planner thinks of it: what it knows of a batch's size is a guess, and a
-- hash of a whole table for each batch would make the work grow with the square of the rows.
SELECT set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
    set_config('enable_sort', 'off', false), set_config('enable_incremental_sort', 'off', false),
    set_config('enable_bitmapscan', 'off', false), set_config('enable_hashagg', 'off', false);

-- name: audit_page_turn
-- Where a batch of turns ends: its size and its last key; no row behind the last.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, turn_id) AS n,
        organization_id, turn_id
    FROM turn p
    WHERE (p.organization_id, p.turn_id) > (%(a1)s, %(a2)s)
    ORDER BY organization_id, turn_id LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_turn_marker
-- As audit_page_turn, of what is owed.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, turn_id) AS n,
        organization_id, turn_id
    FROM turn_marker p
    WHERE (p.organization_id, p.turn_id) > (%(a1)s, %(a2)s)
    ORDER BY organization_id, turn_id LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_message
-- As audit_page_turn, in the order of message ids.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, agent_id, conversation_id, message_id) AS n,
        organization_id, agent_id, conversation_id, message_id
    FROM turn p
    WHERE (p.organization_id, p.agent_id, p.conversation_id, p.message_id) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    ORDER BY organization_id, agent_id, conversation_id, message_id LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_conversation_event
-- As audit_page_turn, of events.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, agent_id, conversation_id, seq) AS n,
        organization_id, agent_id, conversation_id, seq
    FROM conversation_event p
    WHERE (p.organization_id, p.agent_id, p.conversation_id, p.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    ORDER BY organization_id, agent_id, conversation_id, seq LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_conversation
-- As audit_page_turn, of conversations.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, agent_id, conversation_id) AS n,
        organization_id, agent_id, conversation_id
    FROM conversation p
    WHERE (p.organization_id, p.agent_id, p.conversation_id) > (%(a1)s, %(a2)s, %(a3)s)
    ORDER BY organization_id, agent_id, conversation_id LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_run
-- As audit_page_turn, of runs.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, run_id) AS n,
        organization_id, run_id
    FROM run p
    WHERE (p.organization_id, p.run_id) > (%(a1)s, %(a2)s)
    ORDER BY organization_id, run_id LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_transcript_segment
-- As audit_page_turn, of segments.
SELECT q.* FROM (
    SELECT row_number() OVER (ORDER BY organization_id, agent_id, conversation_id, generation, seq) AS n,
        organization_id, agent_id, conversation_id, generation, seq
    FROM transcript_segment p
    WHERE (p.organization_id, p.agent_id, p.conversation_id, p.generation, p.seq)
            > (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
    ORDER BY organization_id, agent_id, conversation_id, generation, seq LIMIT %(limit)s
) q
ORDER BY q.n DESC LIMIT 1;

-- name: audit_page_snapshot
-- As audit_page_turn, of conversations; a batch ends behind the one whose snapshot is the first over the given bytes.
SELECT q.n, q.organization_id, q.agent_id, q.conversation_id FROM (
    SELECT k.*, row_number() OVER w AS n, sum(k.bytes) OVER w - k.bytes AS before
    FROM (
        SELECT c.organization_id, c.agent_id, c.conversation_id, coalesce(s.total_length, 0) AS bytes
        FROM (
            SELECT organization_id, agent_id, conversation_id, generation FROM conversation p
            WHERE (p.organization_id, p.agent_id, p.conversation_id) > (%(a1)s, %(a2)s, %(a3)s)
            ORDER BY organization_id, agent_id, conversation_id LIMIT %(limit)s
        ) c
        LEFT JOIN LATERAL (
            SELECT total_length FROM transcript_segment
            WHERE organization_id = c.organization_id AND agent_id = c.agent_id
                AND conversation_id = c.conversation_id AND generation = c.generation
            ORDER BY seq DESC LIMIT 1
        ) s ON true
    ) k
    WINDOW w AS (ORDER BY k.organization_id, k.agent_id, k.conversation_id)
) q
WHERE q.before <= %(bytes)s
ORDER BY q.n DESC LIMIT 1;

-- name: audit_missing_guards
-- Of some unique indexes, those that are absent or not in force: without them a broken row is only found, not refused.
SELECT NULL, NULL, jsonb_build_object('index', g.name)
FROM unnest(%(guards)s::text[]) g (name)
WHERE NOT EXISTS (
    SELECT 1 FROM pg_index i
    WHERE i.indexrelid = to_regclass(g.name) AND i.indisunique AND i.indisvalid AND i.indisready)
LIMIT %(rows)s;

-- name: audit_turn_ended_without_one_terminal
-- An ended turn has one terminal event: none, or several.
SELECT t.organization_id, t.conversation_id,
    jsonb_build_object('turnId', t.turn_id, 'status', t.status, 'terminalEvents', e.n)
FROM turn t
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM conversation_event
    WHERE organization_id = t.organization_id AND turn_id = t.turn_id
        AND type IN ('complete', 'agent-error', 'cancelled')
) e
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND t.status NOT IN ('queued', 'running') AND e.n <> 1
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_turn_ended_with_marker
-- What has ended is not owed.
SELECT t.organization_id, t.conversation_id, jsonb_build_object('turnId', t.turn_id, 'status', t.status)
FROM turn t
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND t.status NOT IN ('queued', 'running') AND EXISTS (
        SELECT 1 FROM turn_marker m WHERE m.organization_id = t.organization_id AND m.turn_id = t.turn_id)
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_turn_owed_without_marker
-- What is owed has a marker: nobody would ever look for it without.
SELECT t.organization_id, t.conversation_id, jsonb_build_object('turnId', t.turn_id, 'status', t.status)
FROM turn t
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND t.status IN ('queued', 'running') AND NOT EXISTS (
        SELECT 1 FROM turn_marker m WHERE m.organization_id = t.organization_id AND m.turn_id = t.turn_id)
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_turn_contradicts_terminal
-- A turn's state is what its terminal event says; an owed turn has none.
SELECT t.organization_id, t.conversation_id,
    jsonb_build_object('turnId', t.turn_id, 'status', t.status, 'seq', e.seq, 'type', e.type)
FROM turn t
CROSS JOIN LATERAL (
    SELECT seq, type FROM conversation_event
    WHERE organization_id = t.organization_id AND turn_id = t.turn_id
        AND type IN ('complete', 'agent-error', 'cancelled')
) e
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND e.type <> CASE t.status WHEN 'completed' THEN 'complete' WHEN 'cancelled' THEN 'cancelled'
        WHEN 'failed' THEN 'agent-error' WHEN 'timeout' THEN 'agent-error' ELSE 'none' END
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_turn_running_without_live_run
-- A running turn is in a live run that names it, and its marker names that run.
SELECT t.organization_id, t.conversation_id, jsonb_build_object('turnId', t.turn_id, 'runId', m.run_id)
FROM turn t
LEFT JOIN turn_marker m ON m.organization_id = t.organization_id AND m.turn_id = t.turn_id
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND t.status = 'running' AND NOT EXISTS (
        SELECT 1 FROM run r
        WHERE r.organization_id = t.organization_id AND r.run_id = m.run_id AND r.status = 'live'
            AND r.agent_id = t.agent_id AND r.conversation_id = t.conversation_id AND t.turn_id = ANY (r.turn_ids))
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_turn_queued_in_run
-- A queued turn is in no run.
SELECT t.organization_id, t.conversation_id, jsonb_build_object('turnId', t.turn_id, 'runId', m.run_id)
FROM turn t
CROSS JOIN LATERAL (
    SELECT run_id FROM turn_marker WHERE organization_id = t.organization_id AND turn_id = t.turn_id LIMIT 1
) m
WHERE (t.organization_id, t.turn_id) > (%(a1)s, %(a2)s) AND (t.organization_id, t.turn_id) <= (%(u1)s, %(u2)s)
    AND t.status = 'queued' AND m.run_id IS NOT NULL
ORDER BY t.organization_id, t.turn_id LIMIT %(rows)s;

-- name: audit_marker_without_turn
-- What a marker owes is a turn of the same conversation, and that is there to be told its end.
SELECT m.organization_id, m.conversation_id, jsonb_build_object('turnId', m.turn_id, 'runId', m.run_id)
FROM turn_marker m
WHERE (m.organization_id, m.turn_id) > (%(a1)s, %(a2)s) AND (m.organization_id, m.turn_id) <= (%(u1)s, %(u2)s)
    AND NOT EXISTS (
        SELECT 1 FROM turn t
        JOIN conversation c ON c.organization_id = t.organization_id AND c.agent_id = t.agent_id
            AND c.conversation_id = t.conversation_id
        WHERE t.organization_id = m.organization_id AND t.turn_id = m.turn_id AND t.agent_id = m.agent_id
            AND t.conversation_id = m.conversation_id)
ORDER BY m.organization_id, m.turn_id LIMIT %(rows)s;

-- name: audit_message_accepted_twice
-- A message id names one turn.
SELECT t.organization_id, t.conversation_id,
    jsonb_build_object('messageId', t.message_id, 'turns', count(*),
        'turnIds', jsonb_build_array(min(t.turn_id), max(t.turn_id)))
FROM turn t
WHERE (t.organization_id, t.agent_id, t.conversation_id, t.message_id) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    AND (t.organization_id, t.agent_id, t.conversation_id, t.message_id) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
GROUP BY t.organization_id, t.agent_id, t.conversation_id, t.message_id
HAVING count(*) > 1
LIMIT %(rows)s;

-- name: audit_terminal_without_turn
-- A terminal event ends a turn that was accepted.
SELECT e.organization_id, e.conversation_id, jsonb_build_object('seq', e.seq, 'type', e.type, 'turnId', e.turn_id)
FROM conversation_event e
WHERE (e.organization_id, e.agent_id, e.conversation_id, e.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    AND (e.organization_id, e.agent_id, e.conversation_id, e.seq) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
    AND e.type IN ('complete', 'agent-error', 'cancelled') AND NOT EXISTS (
        SELECT 1 FROM turn t WHERE t.organization_id = e.organization_id AND t.turn_id = e.turn_id)
ORDER BY e.organization_id, e.agent_id, e.conversation_id, e.seq LIMIT %(rows)s;

-- name: audit_terminal_of_another_turn
-- It ends a turn of its own conversation, and tells that turn's message id.
SELECT e.organization_id, e.conversation_id,
    jsonb_build_object('seq', e.seq, 'turnId', e.turn_id, 'tells', e.data -> 'messageId', 'turnOf', t.conversation_id,
        'messageId', t.message_id)
FROM conversation_event e
JOIN turn t ON t.organization_id = e.organization_id AND t.turn_id = e.turn_id
WHERE (e.organization_id, e.agent_id, e.conversation_id, e.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    AND (e.organization_id, e.agent_id, e.conversation_id, e.seq) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
    AND e.type IN ('complete', 'agent-error', 'cancelled')
    AND (t.agent_id <> e.agent_id OR t.conversation_id <> e.conversation_id OR t.message_id
        IS DISTINCT FROM e.data ->> 'messageId')
ORDER BY e.organization_id, e.agent_id, e.conversation_id, e.seq LIMIT %(rows)s;

-- name: audit_event_of_later_epoch
-- Nobody writes under an epoch that the lease has not reached. Leases are never deleted.
SELECT e.organization_id, e.conversation_id, jsonb_build_object('seq', e.seq, 'epoch', e.epoch, 'leaseEpoch', l.epoch)
FROM conversation_event e
LEFT JOIN actor_lease l ON l.organization_id = e.organization_id AND l.kind = 'conversation'
    AND l.key = e.conversation_id
WHERE (e.organization_id, e.agent_id, e.conversation_id, e.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    AND (e.organization_id, e.agent_id, e.conversation_id, e.seq) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
    AND (l.epoch IS NULL OR e.epoch > l.epoch)
ORDER BY e.organization_id, e.agent_id, e.conversation_id, e.seq LIMIT %(rows)s;

-- name: audit_event_epoch_goes_back
-- Within a log epochs only grow. The last row of the batch before is read again, to be compared with the first of this.
SELECT w.organization_id, w.conversation_id, jsonb_build_object('seq', w.seq, 'epoch', w.epoch, 'before', w.before)
FROM (
    SELECT e.organization_id, e.conversation_id, e.seq, e.epoch, lag(e.epoch) OVER (
        PARTITION BY e.organization_id, e.agent_id, e.conversation_id ORDER BY e.seq) AS before
    FROM conversation_event e
    WHERE (e.organization_id, e.agent_id, e.conversation_id, e.seq) >= (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
        AND (e.organization_id, e.agent_id, e.conversation_id, e.seq) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
) w
WHERE w.epoch < w.before
LIMIT %(rows)s;

-- name: audit_event_out_of_sequence
-- Numbers follow each other from the first one that retention left. Trimming may go on meanwhile, so an event may also
-- be the first one that is left now.
SELECT w.organization_id, w.conversation_id,
    jsonb_build_object('seq', w.seq, 'before', w.before, 'trimmedToSeq', c.trimmed_to_seq)
FROM (
    SELECT e.organization_id, e.agent_id, e.conversation_id, e.seq, lag(e.seq) OVER (
        PARTITION BY e.organization_id, e.agent_id, e.conversation_id ORDER BY e.seq) AS before
    FROM conversation_event e
    WHERE (e.organization_id, e.agent_id, e.conversation_id, e.seq) >= (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
        AND (e.organization_id, e.agent_id, e.conversation_id, e.seq) <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s)
) w
LEFT JOIN conversation c ON c.organization_id = w.organization_id AND c.agent_id = w.agent_id
    AND c.conversation_id = w.conversation_id
WHERE (w.organization_id, w.agent_id, w.conversation_id, w.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s)
    AND w.seq <> coalesce(w.before + 1, -1) AND w.seq IS DISTINCT FROM c.trimmed_to_seq + 1
ORDER BY w.organization_id, w.agent_id, w.conversation_id, w.seq LIMIT %(rows)s;

-- name: audit_next_event_seq
-- The next number is one more than the newest event's, or than what was trimmed.
SELECT c.organization_id, c.conversation_id,
    jsonb_build_object('nextEventSeq', c.next_event_seq, 'newestSeq', e.seq, 'trimmedToSeq', c.trimmed_to_seq)
FROM conversation c
LEFT JOIN LATERAL (
    SELECT seq FROM conversation_event
    WHERE organization_id = c.organization_id AND agent_id = c.agent_id AND conversation_id = c.conversation_id
    ORDER BY seq DESC LIMIT 1
) e ON true
WHERE (c.organization_id, c.agent_id, c.conversation_id) > (%(a1)s, %(a2)s, %(a3)s)
    AND (c.organization_id, c.agent_id, c.conversation_id) <= (%(u1)s, %(u2)s, %(u3)s)
    AND c.next_event_seq <> coalesce(e.seq, c.trimmed_to_seq) + 1
ORDER BY c.organization_id, c.agent_id, c.conversation_id LIMIT %(rows)s;

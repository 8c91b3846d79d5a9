-- The invariants of runs and of snapshots; see audit.sql.

-- name: audit_run_of_later_epoch
-- As audit_event_of_later_epoch, of runs.
SELECT r.organization_id, r.conversation_id,
    jsonb_build_object('runId', r.run_id, 'epoch', r.epoch, 'leaseEpoch', l.epoch)
FROM run r
LEFT JOIN actor_lease l ON l.organization_id = r.organization_id AND l.kind = 'conversation'
    AND l.key = r.conversation_id
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND (l.epoch IS NULL OR r.epoch > l.epoch)
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_run_ended_by_no_epoch
-- A run is ended under its own epoch or a later one that there was.
SELECT r.organization_id, r.conversation_id,
    jsonb_build_object('runId', r.run_id, 'epoch', r.epoch, 'endedEpoch', r.ended_epoch, 'leaseEpoch', l.epoch)
FROM run r
LEFT JOIN actor_lease l ON l.organization_id = r.organization_id AND l.kind = 'conversation'
    AND l.key = r.conversation_id
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND r.status <> 'live'
    AND (r.ended_epoch IS NULL OR r.ended_epoch < r.epoch OR l.epoch IS NULL OR r.ended_epoch > l.epoch)
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_run_of_another_host
-- A live run of the lease's epoch is run by the lease's holder.
SELECT r.organization_id, r.conversation_id,
    jsonb_build_object('runId', r.run_id, 'epoch', r.epoch, 'hostId', r.host_id, 'leaseHostId', l.host_id)
FROM run r
JOIN actor_lease l ON l.organization_id = r.organization_id AND l.kind = 'conversation'
    AND l.key = r.conversation_id
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND r.status = 'live' AND r.epoch = l.epoch AND r.host_id <> l.host_id
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_run_live_twice
-- One live run a conversation.
SELECT r.organization_id, r.conversation_id, jsonb_build_object('runId', r.run_id, 'liveToo', o.run_id)
FROM run r
JOIN run o ON o.organization_id = r.organization_id AND o.agent_id = r.agent_id
    AND o.conversation_id = r.conversation_id AND o.status = 'live' AND o.run_id > r.run_id
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND r.status = 'live'
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_run_live_without_debt
-- A live run works on something that is owed: it has not outlived its turns.
SELECT r.organization_id, r.conversation_id, jsonb_build_object('runId', r.run_id, 'turnIds', r.turn_ids)
FROM run r
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND r.status = 'live' AND NOT EXISTS (
        SELECT 1 FROM turn_marker m
        WHERE m.organization_id = r.organization_id AND m.agent_id = r.agent_id
            AND m.conversation_id = r.conversation_id AND m.run_id = r.run_id)
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_run_live_under_old_epoch
-- A new owner ends or takes over what the last one left running, and has had the time to.
SELECT r.organization_id, r.conversation_id,
    jsonb_build_object('runId', r.run_id, 'epoch', r.epoch, 'leaseEpoch', l.epoch, 'leaseHostId', l.host_id)
FROM run r
JOIN actor_lease l ON l.organization_id = r.organization_id AND l.kind = 'conversation' AND l.key = r.conversation_id
JOIN host h ON h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp()
WHERE (r.organization_id, r.run_id) > (%(a1)s, %(a2)s) AND (r.organization_id, r.run_id) <= (%(u1)s, %(u2)s)
    AND r.status = 'live' AND r.epoch < l.epoch
    AND l.acquired_at < statement_timestamp() - make_interval(secs => %(settled_seconds)s)
ORDER BY r.organization_id, r.run_id LIMIT %(rows)s;

-- name: audit_segment_without_completed_run
-- A snapshot is that of a completed run of its conversation.
SELECT s.organization_id, s.conversation_id, jsonb_build_object('runId', s.run_id, 'seq', s.seq)
FROM transcript_segment s
WHERE (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
    AND (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq)
        <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s, %(u5)s)
    AND NOT EXISTS (
        SELECT 1 FROM run r
        WHERE r.organization_id = s.organization_id AND r.run_id = s.run_id AND r.agent_id = s.agent_id
            AND r.conversation_id = s.conversation_id AND r.status = 'completed')
ORDER BY s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq LIMIT %(rows)s;

-- name: audit_segment_without_its_reply
-- It was committed with its run's reply, whose seq it has and near whose time it was written. Of a reply that was
-- trimmed nothing can be said.
SELECT s.organization_id, s.conversation_id,
    jsonb_build_object('runId', s.run_id, 'seq', s.seq, 'createdAt', s.created_at)
FROM transcript_segment s
JOIN conversation c ON c.organization_id = s.organization_id AND c.agent_id = s.agent_id
    AND c.conversation_id = s.conversation_id
WHERE (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
    AND (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq)
        <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s, %(u5)s)
    AND s.seq > c.trimmed_to_seq AND NOT EXISTS (
        SELECT 1 FROM conversation_event e
        WHERE e.organization_id = s.organization_id AND e.agent_id = s.agent_id
            AND e.conversation_id = s.conversation_id AND e.seq = s.seq AND e.type = 'complete'
            AND e.run_id = s.run_id
            AND e.created_at BETWEEN s.created_at - interval '1 minute' AND s.created_at + interval '1 minute')
ORDER BY s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq LIMIT %(rows)s;

-- name: audit_segment_out_of_place
-- It belongs to a generation that its open conversation has had; a closed one keeps none.
SELECT s.organization_id, s.conversation_id,
    jsonb_build_object('runId', s.run_id, 'generation', s.generation, 'current', c.generation, 'closedAt', c.closed_at)
FROM transcript_segment s
LEFT JOIN conversation c ON c.organization_id = s.organization_id AND c.agent_id = s.agent_id
    AND c.conversation_id = s.conversation_id
WHERE (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
    AND (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq)
        <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s, %(u5)s)
    AND (c.generation IS NULL OR s.generation > c.generation OR c.closed_at IS NOT NULL)
ORDER BY s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq LIMIT %(rows)s;

-- name: audit_segment_does_not_follow
-- A suffix begins where the segment before it ends; the first one of a generation is whole.
SELECT w.organization_id, w.conversation_id,
    jsonb_build_object('runId', w.run_id, 'seq', w.seq, 'baseLength', w.base_length, 'before', w.before)
FROM (
    SELECT s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq, s.run_id, s.base_length,
        lag(s.total_length) OVER (
            PARTITION BY s.organization_id, s.agent_id, s.conversation_id, s.generation ORDER BY s.seq) AS before
    FROM transcript_segment s
    WHERE (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq)
        >= (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
        AND (s.organization_id, s.agent_id, s.conversation_id, s.generation, s.seq)
            <= (%(u1)s, %(u2)s, %(u3)s, %(u4)s, %(u5)s)
) w
WHERE (w.organization_id, w.agent_id, w.conversation_id, w.generation, w.seq) > (%(a1)s, %(a2)s, %(a3)s, %(a4)s, %(a5)s)
    AND w.base_length <> 0 AND w.base_length IS DISTINCT FROM w.before
ORDER BY w.organization_id, w.agent_id, w.conversation_id, w.generation, w.seq LIMIT %(rows)s;

-- name: audit_snapshot_does_not_match
-- What a conversation's session is laid out from has the newest segment's length and hash.
SELECT c.organization_id, c.conversation_id,
    jsonb_build_object('sha256', w.sha256, 'totalLength', w.total_length, 'bytes', octet_length(w.data))
FROM conversation c
CROSS JOIN LATERAL (
    SELECT string_agg(s.data, ''::bytea ORDER BY s.seq) AS data,
        (array_agg(s.sha256 ORDER BY s.seq DESC))[1] AS sha256,
        (array_agg(s.total_length ORDER BY s.seq DESC))[1] AS total_length
    FROM transcript_segment s
    WHERE s.organization_id = c.organization_id AND s.agent_id = c.agent_id
        AND s.conversation_id = c.conversation_id AND s.generation = c.generation
        AND s.seq >= coalesce((
            SELECT max(b.seq) FROM transcript_segment b
            WHERE b.organization_id = c.organization_id AND b.agent_id = c.agent_id
                AND b.conversation_id = c.conversation_id AND b.generation = c.generation AND b.base_length = 0), 0)
) w
WHERE (c.organization_id, c.agent_id, c.conversation_id) > (%(a1)s, %(a2)s, %(a3)s)
    AND (c.organization_id, c.agent_id, c.conversation_id) <= (%(u1)s, %(u2)s, %(u3)s)
    AND w.data IS NOT NULL
    AND (octet_length(w.data) <> w.total_length OR encode(sha256(w.data), 'hex') <> w.sha256)
ORDER BY c.organization_id, c.agent_id, c.conversation_id LIMIT %(rows)s;

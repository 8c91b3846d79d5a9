-- What is old goes, in small steps. A turn goes together with its terminal event, and events go from the log's beginning
-- without a hole, so that what is left still fulfils every invariant.

-- name: find_trimmable
-- A page of conversations, in order of their keys: whether each has something old, and how many segments it has
-- (counted to one more than the limit). Old segments count only when a newer whole one has taken their place.
WITH age AS MATERIALIZED (
    SELECT statement_timestamp() - make_interval(secs => %(older_than_seconds)s) AS cutoff
), page AS MATERIALIZED (
    SELECT organization_id, agent_id, conversation_id FROM conversation
    WHERE (organization_id, agent_id, conversation_id)
        > (%(organization_id)s::text, %(agent_id)s::text, %(conversation_id)s::text)
    ORDER BY organization_id, agent_id, conversation_id LIMIT %(limit)s
)
SELECT p.organization_id, p.agent_id, p.conversation_id, coalesce(e.created_at < age.cutoff, false)
    OR s.created_at < age.cutoff AND EXISTS (
        SELECT 1 FROM transcript_segment b
        WHERE b.organization_id = p.organization_id AND b.agent_id = p.agent_id
            AND b.conversation_id = p.conversation_id AND b.base_length = 0
            AND (b.generation, b.seq) > (s.generation, s.seq)), n.segments
FROM page p CROSS JOIN age
LEFT JOIN LATERAL (
    SELECT created_at FROM conversation_event
    WHERE organization_id = p.organization_id AND agent_id = p.agent_id AND conversation_id = p.conversation_id
    ORDER BY seq LIMIT 1
) e ON true
LEFT JOIN LATERAL (
    SELECT generation, seq, created_at FROM transcript_segment
    WHERE organization_id = p.organization_id AND agent_id = p.agent_id AND conversation_id = p.conversation_id
    ORDER BY generation, seq LIMIT 1
) s ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS segments FROM (
        SELECT 1 FROM transcript_segment
        WHERE organization_id = p.organization_id AND agent_id = p.agent_id AND conversation_id = p.conversation_id
        LIMIT %(max_segments)s + 1
    ) q
) n
ORDER BY p.organization_id, p.agent_id, p.conversation_id;

-- name: trim_conversation_unless_busy
-- Deletes the oldest events that are old, their turns, and what belongs to those alone. Stops before the first event
-- that is young, and before what a reader of an owed turn may still ask for. Skips a conversation that somebody else is
-- writing to. Files are unbound only: their bytes may be many, and go in batches of their own (delete_expired_files).
WITH age AS MATERIALIZED (
    SELECT statement_timestamp() - make_interval(secs => %(older_than_seconds)s) AS cutoff
), here AS MATERIALIZED (
    SELECT 1 FROM conversation
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s
    FOR NO KEY UPDATE SKIP LOCKED
), owed AS MATERIALIZED (
    SELECT min(t.first_seq) AS first_seq FROM turn_marker m
    LEFT JOIN LATERAL (
        SELECT first_seq FROM turn WHERE organization_id = m.organization_id AND turn_id = m.turn_id LIMIT 1
    ) t ON true
    WHERE m.organization_id = %(organization_id)s AND m.agent_id = %(agent_id)s
        AND m.conversation_id = %(conversation_id)s
), oldest AS MATERIALIZED (
    SELECT e.* FROM here CROSS JOIN LATERAL (
        SELECT seq, turn_id, type, created_at FROM conversation_event
        WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
            AND conversation_id = %(conversation_id)s
        ORDER BY seq LIMIT %(limit)s
    ) e
), cut AS MATERIALIZED (
    SELECT max(o.seq) AS seq FROM oldest o, owed
    WHERE o.seq < coalesce((SELECT min(y.seq) FROM oldest y, age WHERE y.created_at >= age.cutoff), o.seq + 1)
        AND o.seq < coalesce(owed.first_seq, o.seq + 1)
), gone AS MATERIALIZED (
    SELECT t.turn_id FROM cut, oldest o
    CROSS JOIN LATERAL (
        SELECT turn_id FROM turn
        WHERE organization_id = %(organization_id)s AND turn_id = o.turn_id AND agent_id = %(agent_id)s
            AND conversation_id = %(conversation_id)s AND status NOT IN ('queued', 'running') LIMIT 1
    ) t
    WHERE o.seq <= cut.seq AND o.type IN ('complete', 'agent-error', 'cancelled')
), marked AS (
    UPDATE conversation c SET trimmed_to_seq = cut.seq FROM cut
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s AND cut.seq > c.trimmed_to_seq
), events AS (
    DELETE FROM conversation_event e USING cut
    WHERE e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
        AND e.conversation_id = %(conversation_id)s AND e.seq <= cut.seq
    RETURNING 1
), turns AS (
    DELETE FROM turn t USING gone
    WHERE t.organization_id = %(organization_id)s AND t.turn_id = gone.turn_id
    RETURNING 1
), questions AS (
    DELETE FROM question q USING gone
    WHERE q.organization_id = %(organization_id)s AND q.agent_id = %(agent_id)s
        AND q.conversation_id = %(conversation_id)s AND q.turn_id = gone.turn_id
    RETURNING 1
), files AS (
    UPDATE file f SET turn_id = NULL, expires_at = clock_timestamp() FROM gone
    WHERE f.organization_id = %(organization_id)s AND f.turn_id = gone.turn_id
    RETURNING 1
)
SELECT (SELECT count(*) FROM turns), (SELECT count(*) FROM events), (SELECT count(*) FROM questions),
    (SELECT count(*) FROM files);

-- name: trim_leftovers
-- Deletes, of one conversation, ended runs that are old and that no turn and no segment refers to any more, and old
-- segments that a newer whole one has superseded. What it deletes nobody reads, so it locks nothing beside it.
WITH age AS MATERIALIZED (
    SELECT statement_timestamp() - make_interval(secs => %(older_than_seconds)s) AS cutoff
), here AS MATERIALIZED (
    SELECT generation FROM conversation
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s
), idle AS MATERIALIZED (
    SELECT r.run_id FROM here CROSS JOIN age CROSS JOIN LATERAL (
        SELECT r.run_id FROM run r
        WHERE r.organization_id = %(organization_id)s AND r.agent_id = %(agent_id)s
            AND r.conversation_id = %(conversation_id)s AND r.status <> 'live' AND r.started_at < age.cutoff
            AND r.ended_at < age.cutoff
            AND NOT EXISTS (
                SELECT 1 FROM turn t
                WHERE t.organization_id = %(organization_id)s AND t.turn_id = ANY (r.turn_ids))
            AND NOT EXISTS (
                SELECT 1 FROM transcript_segment s
                WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
                    AND s.conversation_id = %(conversation_id)s AND s.run_id = r.run_id)
        ORDER BY r.started_at LIMIT %(limit)s
    ) r
), runs AS (
    DELETE FROM run r USING idle
    WHERE r.organization_id = %(organization_id)s AND r.run_id = idle.run_id
    RETURNING 1
), posted AS (
    DELETE FROM posted_snapshot p USING idle
    WHERE p.organization_id = %(organization_id)s AND p.run_id = idle.run_id
), segments AS (
    DELETE FROM transcript_segment s USING here, age
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s AND s.created_at < age.cutoff
        AND (s.generation, s.seq) < (here.generation, coalesce((
            SELECT max(b.seq) FROM transcript_segment b
            WHERE b.organization_id = %(organization_id)s AND b.agent_id = %(agent_id)s
                AND b.conversation_id = %(conversation_id)s AND b.generation = here.generation
                AND b.base_length = 0), 0))
    RETURNING 1
)
SELECT (SELECT count(*) FROM segments), (SELECT count(*) FROM runs);

-- name: compact_snapshot_if_it_matches_its_hash
-- Makes the newest segment whole and deletes all before it: (is there a snapshot, does it match, how many were deleted).
-- Takes no lock that the owner needs for a terminal: its next suffix follows the newest segment's length and hash, which
-- stay; a session that is purged meanwhile leaves nothing to update, and then nothing is deleted either.
WITH chain AS MATERIALIZED (
    SELECT s.generation, s.run_id, s.seq, s.total_length, s.sha256, s.data
    FROM conversation c
    JOIN transcript_segment s USING (organization_id, agent_id, conversation_id, generation)
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s
        AND s.seq >= coalesce((
            SELECT max(b.seq) FROM transcript_segment b
            WHERE b.organization_id = c.organization_id AND b.agent_id = c.agent_id
                AND b.conversation_id = c.conversation_id AND b.generation = c.generation AND b.base_length = 0
        ), 0)
), newest AS MATERIALIZED (
    SELECT generation, run_id, seq, total_length, sha256 FROM chain ORDER BY seq DESC LIMIT 1
), whole AS MATERIALIZED (
    SELECT n.generation, n.run_id, n.seq, d.data
    FROM newest n CROSS JOIN (SELECT string_agg(data, ''::bytea ORDER BY seq) AS data FROM chain) d
    WHERE octet_length(d.data) = n.total_length AND encode(sha256(d.data), 'hex') = n.sha256
), merged AS (
    UPDATE transcript_segment s SET base_length = 0, data = whole.data FROM whole
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s AND s.generation = whole.generation
        AND s.run_id = whole.run_id AND s.seq = whole.seq
    RETURNING s.generation, s.seq
), replaced AS (
    DELETE FROM transcript_segment s USING merged
    WHERE s.organization_id = %(organization_id)s AND s.agent_id = %(agent_id)s
        AND s.conversation_id = %(conversation_id)s AND (s.generation, s.seq) < (merged.generation, merged.seq)
    RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM newest), EXISTS (SELECT 1 FROM whole), (SELECT count(*) FROM replaced);

-- name: release_leases_of_hosts_gone_for_long
-- Gives up leases that hosts left behind which are over for so long, of what owes nothing. Anybody could take them before
-- and can afterwards; a host that wakes up after all is fenced as if somebody had.
WITH left_behind AS MATERIALIZED (
    SELECT l.organization_id, l.kind, l.key, h.host_id FROM host h
    CROSS JOIN LATERAL (
        SELECT organization_id, kind, key FROM actor_lease WHERE host_id = h.host_id LIMIT %(limit)s
    ) l
    WHERE h.expires_at < statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND NOT EXISTS (
            SELECT 1 FROM conversation c
            JOIN turn_marker m ON m.organization_id = c.organization_id AND m.agent_id = c.agent_id
                AND m.conversation_id = c.conversation_id
            WHERE c.organization_id = l.organization_id AND c.conversation_id = l.key)
    LIMIT %(limit)s
)
UPDATE actor_lease l SET host_id = NULL
FROM left_behind b
WHERE l.organization_id = b.organization_id AND l.kind = b.kind AND l.key = b.key AND l.host_id = b.host_id;

-- name: delete_hosts_gone_for_long_unless_they_hold_something
-- Deletes rows of hosts that are over for so long and that no lease and no running turn names; gives their ids. What a
-- host ran was accepted before it was over: the hour is for clocks and for hosts that were declared dead while they ran.
WITH named AS MATERIALIZED (
    SELECT host_id FROM turn_marker
    WHERE owed_since <= statement_timestamp() - make_interval(secs => %(older_than_seconds)s) + interval '1 hour'
        AND host_id IS NOT NULL
), gone AS MATERIALIZED (
    SELECT h.host_id FROM host h
    WHERE h.expires_at < statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND NOT EXISTS (SELECT 1 FROM actor_lease l WHERE l.host_id = h.host_id)
        AND NOT EXISTS (SELECT 1 FROM named WHERE named.host_id = h.host_id)
    ORDER BY h.expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM host h USING gone WHERE h.host_id = gone.host_id
RETURNING h.host_id;

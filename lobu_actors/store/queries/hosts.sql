-- Membership, and what an operator or a sweeper asks about the whole cluster.

-- name: register_host
-- Makes a host's row, active; again with the same id it renews it, unless it was declared dead.
INSERT INTO host AS h (host_id, name, link_url, version, state, expires_at)
VALUES (%(host_id)s, %(name)s, %(link_url)s, %(version)s, 'active',
    clock_timestamp() + make_interval(secs => %(ttl_seconds)s))
ON CONFLICT (host_id) DO UPDATE
SET name = EXCLUDED.name, link_url = EXCLUDED.link_url, version = EXCLUDED.version, state = 'active',
    expires_at = EXCLUDED.expires_at
WHERE h.state <> 'dead';

-- name: renew_host_unless_dead
-- Moves the expiry on; no row for a host that was declared dead. An expired host may renew: what was taken from it
-- meanwhile is fenced by epochs, the rest is still its own.
UPDATE host SET expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s), state = %(state)s
WHERE host_id = %(host_id)s AND state <> 'dead'
RETURNING 1;

-- name: declare_host_dead
-- Ends a host's life for good: its leases are free from now on.
UPDATE host SET state = 'dead', expires_at = least(expires_at, clock_timestamp())
WHERE host_id = %(host_id)s;

-- name: find_held
-- Those of some conversations whose lease a host has, by organization and conversation.
SELECT l.organization_id, l.key FROM actor_lease l
JOIN unnest(%(organization_ids)s::text[], %(conversation_ids)s::text[]) AS asked (organization_id, conversation_id)
    ON l.organization_id = asked.organization_id AND l.key = asked.conversation_id
WHERE l.kind = 'conversation' AND l.host_id = %(host_id)s;

-- name: list_hosts
-- All hosts with the number of their leases, longest expiry first.
SELECT h.host_id, h.name, h.link_url, h.version, h.state,
    extract(epoch FROM h.expires_at - clock_timestamp())::float8,
    (SELECT count(*) FROM actor_lease l WHERE l.host_id = h.host_id)
FROM host h
ORDER BY h.expires_at DESC, h.host_id;

-- name: find_owed
-- Conversations that owe a turn or a close and that no other live host holds: abandoned ones first, then our own idle
-- ones (a lost hint), then our own with a live run; each oldest first, and each part stops at the limit, so that a
-- thousand long turns of our own do not hide an abandoned one. To know that nothing is abandoned it has to look at
-- every owed marker: about 2 microseconds each. The lateral parts keep the planner at one look-up a row. A marker whose
-- conversation's row was lost has no log to be ended in: it waits for the conversation to be opened again, and until
-- then must not take the place of what can be done.
WITH abandoned AS MATERIALIZED (
    SELECT m.organization_id, m.agent_id, m.conversation_id, m.owed_since AS since
    FROM turn_marker m
    LEFT JOIN LATERAL (
        SELECT a.host_id FROM actor_lease a
        WHERE a.organization_id = m.organization_id AND a.kind = 'conversation' AND a.key = m.conversation_id LIMIT 1
    ) l ON true
    WHERE m.owed_since <= statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND (l.host_id IS NULL OR l.host_id <> %(host_id)s AND NOT EXISTS (
            SELECT 1 FROM host h
            WHERE h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp()))
        AND EXISTS (
            SELECT 1 FROM conversation c
            WHERE c.organization_id = m.organization_id AND c.agent_id = m.agent_id
                AND c.conversation_id = m.conversation_id)
    ORDER BY m.owed_since LIMIT %(limit)s
), idle AS MATERIALIZED (
    SELECT m.organization_id, m.agent_id, m.conversation_id, m.owed_since AS since
    FROM turn_marker m
    LEFT JOIN LATERAL (
        SELECT a.host_id FROM actor_lease a
        WHERE a.organization_id = m.organization_id AND a.kind = 'conversation' AND a.key = m.conversation_id LIMIT 1
    ) l ON true
    LEFT JOIN LATERAL (
        SELECT true AS live FROM run o
        WHERE o.organization_id = m.organization_id AND o.agent_id = m.agent_id
            AND o.conversation_id = m.conversation_id AND o.status = 'live' LIMIT 1
    ) r ON true
    WHERE m.owed_since <= statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND l.host_id = %(host_id)s AND r.live IS NULL
    ORDER BY m.owed_since LIMIT %(limit)s
), busy AS MATERIALIZED (
    SELECT m.organization_id, m.agent_id, m.conversation_id, m.owed_since AS since
    FROM turn_marker m
    LEFT JOIN LATERAL (
        SELECT a.host_id FROM actor_lease a
        WHERE a.organization_id = m.organization_id AND a.kind = 'conversation' AND a.key = m.conversation_id LIMIT 1
    ) l ON true
    WHERE m.owed_since <= statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND l.host_id = %(host_id)s
    ORDER BY m.owed_since LIMIT %(limit)s
), to_close AS MATERIALIZED (
    SELECT c.organization_id, c.agent_id, c.conversation_id, c.closing_at AS since
    FROM conversation c
    LEFT JOIN LATERAL (
        SELECT a.host_id FROM actor_lease a
        WHERE a.organization_id = c.organization_id AND a.kind = 'conversation' AND a.key = c.conversation_id LIMIT 1
    ) l ON true
    WHERE c.closing_at IS NOT NULL AND c.closed_at IS NULL
        AND c.closing_at <= statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND (l.host_id IS NULL OR l.host_id = %(host_id)s OR NOT EXISTS (
            SELECT 1 FROM host h
            WHERE h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp()))
    ORDER BY c.closing_at LIMIT %(limit)s
), found AS (
    SELECT 1 AS rank, false AS closing, * FROM abandoned
    UNION ALL SELECT 1, true, * FROM to_close
    UNION ALL SELECT 2, false, * FROM idle
    UNION ALL SELECT 3, false, * FROM busy
)
SELECT organization_id, agent_id, conversation_id, bool_or(closing) FROM found
GROUP BY organization_id, agent_id, conversation_id
ORDER BY min(rank), min(since), organization_id, conversation_id
LIMIT %(limit)s;

-- name: totals
-- Counts of one organization, or of all; a marker without a run is queued.
SELECT
    (SELECT count(*) FROM conversation c
        WHERE (%(organization_id)s::text IS NULL OR c.organization_id = %(organization_id)s) AND c.closed_at IS NULL),
    count(*) FILTER (WHERE m.run_id IS NULL), count(m.run_id),
    extract(epoch FROM clock_timestamp() - min(m.accepted_at))::float8
FROM turn_marker m
WHERE %(organization_id)s::text IS NULL OR m.organization_id = %(organization_id)s;

-- name: now
-- The database's clock.
SELECT clock_timestamp();

-- Membership, and what an operator or a sweeper asks about the whole cluster.

-- name: register_host
-- Makes a host's row, active; again with the same id it renews it, unless it was declared dead. Where only one of them may
-- live, expired ones are dead from now on: they must not renew beside this one. Who finds expired ones, and nobody who has
-- renewed all the while, may have come right behind an outage of the database: it gives them as long as a lease lasts.
WITH buried AS (
    UPDATE host SET state = 'dead'
    WHERE host_id <> %(host_id)s AND state <> 'dead' AND expires_at <= clock_timestamp()
        AND (alone IS NOT NULL OR %(alone)s::text IS NOT NULL)
)
INSERT INTO host AS h (host_id, name, link_url, version, state, expires_at, alone, judges_from, judges_until)
VALUES (%(host_id)s, %(name)s, %(link_url)s, %(version)s, 'active',
    clock_timestamp() + make_interval(secs => %(ttl_seconds)s), %(alone)s,
    CASE WHEN NOT EXISTS (
            SELECT 1 FROM host o
            WHERE o.host_id <> %(host_id)s AND o.state <> 'dead' AND o.expires_at <= clock_timestamp())
        OR EXISTS (
            SELECT 1 FROM host o
            WHERE o.host_id <> %(host_id)s AND o.state <> 'dead' AND o.expires_at > clock_timestamp()
                AND o.judges_from <= clock_timestamp() AND o.judges_until > clock_timestamp())
        THEN '-infinity' ELSE clock_timestamp() + make_interval(secs => %(ttl_seconds)s) END,
    clock_timestamp() + make_interval(secs => %(ttl_seconds)s::float8 - %(renew_seconds)s))
ON CONFLICT (host_id) DO UPDATE
SET name = EXCLUDED.name, link_url = EXCLUDED.link_url, version = EXCLUDED.version, state = 'active',
    expires_at = EXCLUDED.expires_at, alone = EXCLUDED.alone, judges_from = EXCLUDED.judges_from,
    judges_until = EXCLUDED.judges_until
WHERE h.state <> 'dead';

-- name: find_rivals
-- The other live hosts where this one or they tolerate no other; asked once the own row is committed, so that of two that
-- start at once the later one sees the earlier.
SELECT h.host_id, h.name, extract(epoch FROM clock_timestamp() - h.started_at)::float8,
    extract(epoch FROM h.expires_at - clock_timestamp())::float8, h.alone
FROM host me
JOIN host h ON h.host_id <> me.host_id AND h.state <> 'dead' AND h.expires_at > clock_timestamp()
WHERE me.host_id = %(host_id)s AND (me.alone IS NOT NULL OR h.alone IS NOT NULL)
ORDER BY h.started_at, h.host_id;

-- name: renew_host_unless_dead
-- Moves the expiry on; no row for a host that was declared dead. An expired host may renew: what was taken from it
-- meanwhile is fenced by epochs, the rest is still its own. Who was asked to drain stays so, and is told. Who comes so late
-- that others, too, may have missed the database gives them as long as a lease lasts before it takes over from them.
UPDATE host SET expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s), runs = %(runs)s, room = %(room)s,
    judges_from = CASE WHEN judges_until > clock_timestamp() THEN judges_from
        ELSE clock_timestamp() + make_interval(secs => %(ttl_seconds)s) END,
    judges_until = clock_timestamp() + make_interval(secs => %(ttl_seconds)s::float8 - %(renew_seconds)s),
    links = %(links)s::jsonb, state = CASE WHEN state = 'draining' THEN state ELSE %(state)s END
WHERE host_id = %(host_id)s AND state <> 'dead'
RETURNING state;

-- name: drain_host_if_alive
-- Asks a live host to drain; it learns of that at its next renewal.
UPDATE host SET state = 'draining'
WHERE host_id = %(host_id)s AND state <> 'dead' AND expires_at > clock_timestamp()
RETURNING 1;

-- name: find_loads
-- The live hosts, and how much each had to do, and room for, at its last renewal.
SELECT host_id, state, runs, room FROM host
WHERE state <> 'dead' AND expires_at > clock_timestamp()
ORDER BY host_id;

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
-- All hosts, longest expiry first, with their leases, the epochs of these (how often they were taken, by anybody), and the
-- turns that run there or wait in what it holds.
WITH held AS (
    SELECT host_id, count(*) AS leases, sum(epoch)::bigint AS epochs FROM actor_lease
    WHERE host_id IS NOT NULL GROUP BY host_id
), running AS (
    SELECT host_id, count(*) AS turns FROM turn_marker WHERE run_id IS NOT NULL GROUP BY host_id
), queued AS (
    SELECT l.host_id, count(*) AS turns
    FROM turn_marker m
    JOIN actor_lease l ON l.organization_id = m.organization_id AND l.kind = 'conversation'
        AND l.key = m.conversation_id
    WHERE m.run_id IS NULL GROUP BY l.host_id
)
SELECT h.host_id, h.name, h.link_url, h.version, h.state,
    extract(epoch FROM h.expires_at - clock_timestamp())::float8, coalesce(held.leases, 0), coalesce(held.epochs, 0),
    coalesce(queued.turns, 0), coalesce(running.turns, 0),
    extract(epoch FROM clock_timestamp() - h.started_at)::float8, h.links
FROM host h
LEFT JOIN held USING (host_id)
LEFT JOIN running USING (host_id)
LEFT JOIN queued USING (host_id)
ORDER BY h.expires_at DESC, h.host_id;

-- name: list_newest_hosts
-- Those whose leases end last, as they told of themselves at their last renewals: nothing is counted.
SELECT host_id, name, link_url, version, state, extract(epoch FROM expires_at - clock_timestamp())::float8,
    extract(epoch FROM clock_timestamp() - started_at)::float8, links
FROM host ORDER BY expires_at DESC, host_id LIMIT %(limit)s;

-- name: find_owed
-- Conversations that owe a turn or a close and that no other live host holds: abandoned ones first, then our own idle
-- ones (a lost hint), then our own with a live run; each oldest first, and each part stops at the limit, so that a
-- thousand long turns of our own do not hide an abandoned one. To know that nothing is abandoned it has to look at
-- every owed marker: about 2 microseconds each. The lateral parts keep the planner at one look-up a row. A marker whose
-- conversation's row was lost has no log to be ended in: it waits for the conversation to be opened again, and until
-- then must not take the place of what can be done. What seems to come from the future is from before the clock was set
-- back: nobody knows how old it is, so it is found like the rest.
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
), misdated AS MATERIALIZED (
    SELECT m.organization_id, m.agent_id, m.conversation_id, m.owed_since AS since
    FROM turn_marker m
    LEFT JOIN LATERAL (
        SELECT a.host_id FROM actor_lease a
        WHERE a.organization_id = m.organization_id AND a.kind = 'conversation' AND a.key = m.conversation_id LIMIT 1
    ) l ON true
    WHERE m.owed_since > statement_timestamp()
        AND (l.host_id IS NULL OR l.host_id = %(host_id)s OR NOT EXISTS (
            SELECT 1 FROM host h
            WHERE h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp()))
        AND EXISTS (
            SELECT 1 FROM conversation c
            WHERE c.organization_id = m.organization_id AND c.agent_id = m.agent_id
                AND c.conversation_id = m.conversation_id)
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
    UNION ALL SELECT 2, false, * FROM misdated
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

-- name: count_owed
-- Turns that wait, turns that run, and for how long the oldest of them is owed; of one organization, or of all. It looks
-- at every owed marker.
SELECT count(*) FILTER (WHERE m.run_id IS NULL), count(m.run_id),
    coalesce(extract(epoch FROM clock_timestamp() - min(m.owed_since))::float8, 0)
FROM turn_marker m
WHERE %(organization_id)s::text IS NULL OR m.organization_id = %(organization_id)s;

-- name: list_owed
-- The oldest owed turns of one organization: queued, or running on a host.
SELECT m.conversation_id, m.turn_id, t.message_id, coalesce(t.attempt, 1), CASE WHEN m.run_id IS NOT NULL THEN m.host_id END,
    extract(epoch FROM clock_timestamp() - m.accepted_at)::float8
FROM turn_marker m
LEFT JOIN turn t ON t.organization_id = m.organization_id AND t.turn_id = m.turn_id
WHERE m.organization_id = %(organization_id)s
ORDER BY m.accepted_at, m.turn_id LIMIT %(limit)s;

-- name: now
-- The database's clock.
SELECT clock_timestamp();

-- What hosts ask about each other, and what they tell each other where they have no link.

-- name: find_peers
-- The other hosts that live, and where each listens for links.
SELECT host_id, link_url FROM host
WHERE host_id <> %(host_id)s AND state <> 'dead' AND expires_at > statement_timestamp()
ORDER BY host_id;

-- name: find_owner
-- The live host that holds a conversation's lease; no row when none does.
SELECT l.host_id FROM actor_lease l
JOIN host h ON h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp()
WHERE l.organization_id = %(organization_id)s AND l.kind = 'conversation' AND l.key = %(conversation_id)s;

-- name: notify
-- Tells whoever listens on this channel. Never part of another transaction: at its commit the server takes one lock for
-- all notices of all databases.
SELECT pg_notify(%(channel)s, %(payload)s);

-- name: listen
-- Hears this channel until the session ends. Its name cannot be a parameter: the driver quotes it in here.
LISTEN {channel};

-- name: hold_host_lock
-- Held as long as this session lives: that it is free says that the host's process, or its connection, is gone.
SELECT pg_try_advisory_lock(hashtextextended(%(host_id)s, 0));

-- name: declare_host_dead_if_unlocked
-- Ends a host's life when nobody holds its lock; gives nothing when somebody does. The lock taken here ends with the
-- statement.
UPDATE host SET state = 'dead', expires_at = least(expires_at, clock_timestamp())
WHERE host_id = %(host_id)s AND state <> 'dead' AND pg_try_advisory_xact_lock(hashtextextended(%(host_id)s, 0))
RETURNING 1;

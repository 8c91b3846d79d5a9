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

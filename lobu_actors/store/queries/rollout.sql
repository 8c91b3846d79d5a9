-- One host after the other: whose turn it is to be restarted.

-- name: begin_rollout_if_nobody_is_down
-- Takes the turn for a host. Not while another rollout lives, nor after one that stopped in the middle and whose host is
-- not back (unless it is this host, or `without` names it), nor while another host drains.
INSERT INTO rollout AS r (rollout_id, first_host_id, host_id, name, expires_at)
SELECT %(rollout_id)s, %(host_id)s, %(host_id)s, %(name)s,
    clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
WHERE NOT EXISTS (
    SELECT 1 FROM host h
    WHERE h.state = 'draining' AND h.expires_at > clock_timestamp() AND h.host_id <> %(host_id)s
)
ON CONFLICT (single) DO UPDATE
SET rollout_id = EXCLUDED.rollout_id, first_host_id = EXCLUDED.first_host_id, host_id = EXCLUDED.host_id,
    name = EXCLUDED.name, began_at = clock_timestamp(), expires_at = EXCLUDED.expires_at, ended_at = NULL
WHERE r.ended_at IS NOT NULL
    OR r.expires_at <= clock_timestamp() AND (
        r.host_id = EXCLUDED.host_id
        OR r.name = %(without)s
        OR EXISTS (
            SELECT 1 FROM host h
            WHERE h.host_id = r.host_id AND h.state = 'active' AND h.expires_at > clock_timestamp()))
RETURNING 1;

-- name: renew_rollout_if_ours
-- Moves its expiry on; no row when it is another one's turn by now.
UPDATE rollout SET expires_at = clock_timestamp() + make_interval(secs => %(ttl_seconds)s)
WHERE rollout_id = %(rollout_id)s AND ended_at IS NULL
RETURNING 1;

-- name: end_rollout_if_back
-- Gives the turn up once its host is back: a new process, active.
UPDATE rollout r SET ended_at = clock_timestamp()
WHERE r.rollout_id = %(rollout_id)s AND r.ended_at IS NULL AND r.host_id <> r.first_host_id AND EXISTS (
    SELECT 1 FROM host h
    WHERE h.host_id = r.host_id AND h.state = 'active' AND h.expires_at > clock_timestamp())
RETURNING 1;

-- name: give_rollout_up
-- Ends it though its host is not back: nothing was restarted, or somebody has to look. Others go by the host's own row.
UPDATE rollout SET expires_at = clock_timestamp() WHERE rollout_id = %(rollout_id)s AND ended_at IS NULL;

-- name: follow_rollout
-- A host that starts is the same as the one before it in its state directory.
UPDATE rollout SET host_id = %(host_id)s WHERE host_id = %(predecessor)s;

-- name: find_rollout
-- The last one, if any: whose it is, whether it goes on, and whether its host is there.
SELECT r.name, r.ended_at IS NULL AND r.expires_at > clock_timestamp(), r.ended_at IS NOT NULL OR EXISTS (
    SELECT 1 FROM host h
    WHERE h.host_id = r.host_id AND h.state = 'active' AND h.expires_at > clock_timestamp())
FROM rollout r;

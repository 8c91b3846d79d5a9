-- Singletons: leases of other kinds than a conversation's. Writes under them are guarded as those of a conversation's
-- owner are (see actors.sql): the lease row FOR SHARE, in the same statement.

-- name: acquire_singleton_unless_held_by_live_host
-- Takes the lease under the next epoch; no row when another live host holds it or the caller's own host row is not alive.
-- Looks before it writes, since the hosts that do not hold it ask every second, and a refused upsert locks the row.
WITH me AS MATERIALIZED (
    SELECT m.host_id FROM host m
    WHERE m.host_id = %(host_id)s AND m.state <> 'dead' AND m.expires_at > statement_timestamp()
        AND NOT EXISTS (
            SELECT 1 FROM actor_lease l JOIN host h ON h.host_id = l.host_id
            WHERE l.organization_id = %(organization_id)s AND l.kind = %(kind)s AND l.key = %(key)s
                AND l.host_id <> m.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp())
)
INSERT INTO actor_lease AS l (organization_id, kind, key, host_id, epoch)
SELECT %(organization_id)s, %(kind)s, %(key)s, me.host_id, 1 FROM me
ON CONFLICT (organization_id, kind, key) DO UPDATE
SET host_id = EXCLUDED.host_id, epoch = l.epoch + 1, acquired_at = clock_timestamp()
WHERE l.host_id IS NULL OR l.host_id = EXCLUDED.host_id OR NOT EXISTS (
    SELECT 1 FROM host h
    WHERE h.host_id = l.host_id AND h.state <> 'dead' AND h.expires_at > statement_timestamp())
RETURNING epoch;

-- name: is_singleton_held
-- Whether the lease row still names this host and epoch.
SELECT 1 FROM actor_lease
WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
    AND host_id = %(host_id)s AND epoch = %(epoch)s;

-- name: release_singleton_if_held
-- Gives the lease up; the row and its epoch stay.
UPDATE actor_lease SET host_id = NULL
WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
    AND host_id = %(host_id)s AND epoch = %(epoch)s;

-- name: begin_watchers_if_lease_held
-- Makes the organization's watchers be these: a new one, or one with another schedule, counts from now on; what else
-- there is goes. Gives them all; one row of NULLs when there are none, no row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), gone AS (
    DELETE FROM watcher_state w USING held
    WHERE w.organization_id = %(organization_id)s AND w.watcher_id <> ALL (%(watcher_ids)s::text[])
), here AS (
    INSERT INTO watcher_state AS w (organization_id, watcher_id, schedule, considered_until)
    SELECT %(organization_id)s, x.watcher_id, x.schedule, clock_timestamp()
    FROM held, unnest(%(watcher_ids)s::text[], %(schedules)s::text[]) AS x (watcher_id, schedule)
    ON CONFLICT (organization_id, watcher_id) DO UPDATE
    SET schedule = EXCLUDED.schedule, considered_until = CASE
        WHEN w.schedule = EXCLUDED.schedule THEN w.considered_until
        ELSE greatest(w.considered_until, EXCLUDED.considered_until) END
    RETURNING watcher_id, considered_until, pending_for
)
SELECT here.watcher_id, here.considered_until, here.pending_for FROM held LEFT JOIN here ON true
ORDER BY here.watcher_id;

-- name: claim_firing_if_lease_held
-- Decides on a firing, before it is made: all earlier ones are dealt with by it. No row when the lease is lost, another
-- firing is decided on, or this or a later one was; asked again after an unknown outcome it gives the row again.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
)
UPDATE watcher_state w SET considered_until = %(scheduled_at)s, pending_for = %(scheduled_at)s
FROM held
WHERE w.organization_id = %(organization_id)s AND w.watcher_id = %(watcher_id)s
    AND (w.pending_for IS NULL AND w.considered_until < %(scheduled_at)s OR w.pending_for = %(scheduled_at)s)
RETURNING 1;

-- name: confirm_firing_if_lease_held
-- Notes that a firing was accepted as a turn. No row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), fired AS (
    UPDATE watcher_state w SET pending_for = NULL, last_fired_at = %(scheduled_at)s
    FROM held
    WHERE w.organization_id = %(organization_id)s AND w.watcher_id = %(watcher_id)s
        AND w.pending_for = %(scheduled_at)s
)
SELECT 1 FROM held;

-- name: owe_delivery_if_lease_held
-- Notes what a chat is owed, before its message is accepted; by delivery_id, once. A notice takes the place of the reply
-- of a message that was refused. No row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), owed AS (
    INSERT INTO platform_delivery AS d (organization_id, channel, delivery_id, agent_id, conversation_id, message_id,
        address, notice)
    SELECT %(organization_id)s, %(key)s, %(delivery_id)s, %(agent_id)s, %(conversation_id)s, %(message_id)s,
        %(address)s::jsonb, %(notice)s
    FROM held
    ON CONFLICT (organization_id, channel, delivery_id) DO UPDATE SET notice = EXCLUDED.notice
    WHERE d.status = 'owed' AND d.parts_sent = 0 AND EXCLUDED.notice IS NOT NULL
)
SELECT 1 FROM held;

-- name: find_owed_deliveries
-- The oldest debt of each conversation of a channel, with its turn and the seq of its terminal event as far as they are.
WITH heads AS MATERIALIZED (
    SELECT DISTINCT ON (conversation_id) delivery_id, agent_id, conversation_id, message_id, address, notice,
        parts_sent, created_at
    FROM platform_delivery
    WHERE organization_id = %(organization_id)s AND channel = %(key)s AND status = 'owed'
    ORDER BY conversation_id, created_at, delivery_id
), oldest AS MATERIALIZED (
    SELECT * FROM heads ORDER BY created_at, delivery_id LIMIT %(limit)s
)
SELECT o.delivery_id, o.agent_id, o.conversation_id, o.message_id, o.address, o.notice, o.parts_sent,
    t.turn_id IS NOT NULL, e.seq
FROM oldest o
LEFT JOIN LATERAL (
    SELECT turn_id FROM turn
    WHERE organization_id = %(organization_id)s AND agent_id = o.agent_id AND conversation_id = o.conversation_id
        AND message_id = o.message_id
    LIMIT 1
) t ON true
LEFT JOIN LATERAL (
    SELECT seq FROM conversation_event
    WHERE organization_id = %(organization_id)s AND turn_id = t.turn_id
        AND type IN ('complete', 'agent-error', 'cancelled')
    LIMIT 1
) e ON true
ORDER BY o.created_at, o.delivery_id;

-- name: record_delivery_if_lease_held
-- How far a delivery has come; what has ended stays as it ended. No row when the lease is lost.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), recorded AS (
    UPDATE platform_delivery d
    SET parts_sent = greatest(d.parts_sent, %(parts_sent)s), status = %(status)s, error = %(error)s,
        ended_at = CASE WHEN %(status)s = 'owed' THEN NULL ELSE clock_timestamp() END
    FROM held
    WHERE d.organization_id = %(organization_id)s AND d.channel = %(key)s AND d.delivery_id = %(delivery_id)s
        AND d.status = 'owed'
)
SELECT 1 FROM held;

-- name: forget_deliveries_if_lease_held
-- Deletes old deliveries: those that have ended, and those whose message never became a turn or whose turn is gone.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = %(kind)s AND key = %(key)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), old AS MATERIALIZED (
    SELECT d.delivery_id FROM held, platform_delivery d
    WHERE d.organization_id = %(organization_id)s AND d.channel = %(key)s
        AND d.created_at < statement_timestamp() - make_interval(secs => %(older_than_seconds)s)
        AND (d.status <> 'owed' OR d.notice IS NULL AND NOT EXISTS (
            SELECT 1 FROM turn t
            WHERE t.organization_id = %(organization_id)s AND t.agent_id = d.agent_id
                AND t.conversation_id = d.conversation_id AND t.message_id = d.message_id))
    ORDER BY d.created_at LIMIT %(limit)s
)
DELETE FROM platform_delivery d
WHERE d.organization_id = %(organization_id)s AND d.channel = %(key)s
    AND d.delivery_id = ANY (ARRAY(SELECT delivery_id FROM old))
RETURNING 1;

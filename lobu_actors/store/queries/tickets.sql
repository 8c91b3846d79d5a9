-- One-use tickets: only that one was used is stored, never that one was given out.

-- name: use_ticket_if_unused
-- Records a ticket's one use, and deletes some other rows whose time is over. No row when another call has used it
-- before, unless that row's time is over.
WITH expired AS MATERIALIZED (
    SELECT organization_id, ticket_id FROM used_ticket
    WHERE expires_at < statement_timestamp()
        AND (organization_id, ticket_id) <> (%(organization_id)s::text, %(ticket_id)s::text)
    ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM used_ticket u USING expired e
    WHERE u.organization_id = e.organization_id AND u.ticket_id = e.ticket_id
)
INSERT INTO used_ticket AS u (organization_id, ticket_id, use_id, expires_at)
VALUES (%(organization_id)s, %(ticket_id)s, %(use_id)s,
    statement_timestamp() + %(kept_seconds)s::float8 * interval '1 second')
ON CONFLICT (organization_id, ticket_id) DO UPDATE
SET use_id = EXCLUDED.use_id, expires_at = EXCLUDED.expires_at
WHERE u.use_id = EXCLUDED.use_id OR u.expires_at < statement_timestamp()
RETURNING 1;

-- Files of a conversation. Bytes first, under no turn; bound to a turn by the statement that accepts or ends it (in
-- conversations.sql and actors.sql). What has no turn is seen by nobody and deleted when its time has come.

-- name: insert_unbound_file
-- Makes a file without bytes and without a turn; nothing when it is there.
INSERT INTO file (organization_id, file_id, agent_id, conversation_id, direction, name, media_type, size, sha256,
    expires_at)
VALUES (%(organization_id)s, %(file_id)s, %(agent_id)s, %(conversation_id)s, %(direction)s, %(name)s, %(media_type)s,
    0, '', clock_timestamp() + %(lives_seconds)s::float8 * interval '1 second')
ON CONFLICT DO NOTHING;

-- name: append_file_chunk_if_unbound
-- Adds a piece to a file that is not sealed; nothing when that piece is there. Says whether there is such a file.
WITH open AS MATERIALIZED (
    SELECT file_id FROM file
    WHERE organization_id = %(organization_id)s AND file_id = %(file_id)s AND turn_id IS NULL AND sha256 = ''
    FOR KEY SHARE
), made AS (
    INSERT INTO file_chunk (organization_id, file_id, chunk_no, data)
    SELECT %(organization_id)s, open.file_id, %(chunk_no)s, %(data)s::bytea FROM open
    ON CONFLICT DO NOTHING
)
SELECT 1 FROM open;

-- name: seal_file_if_unbound
-- Says what its pieces are together; only a sealed file can be bound. Asked again, it says so again.
UPDATE file SET size = %(size)s, sha256 = %(sha256)s
WHERE organization_id = %(organization_id)s AND file_id = %(file_id)s AND turn_id IS NULL
RETURNING 1;

-- name: delete_files_if_unbound
-- Deletes those of some files that no turn has.
DELETE FROM file
WHERE organization_id = %(organization_id)s AND file_id = ANY (%(file_ids)s::text[]) AND turn_id IS NULL;

-- name: delete_expired_files
-- Deletes some files whose time has come, across tenants, oldest first; gives how many.
WITH expired AS MATERIALIZED (
    SELECT organization_id, file_id FROM file
    WHERE expires_at < statement_timestamp()
    ORDER BY expires_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), deleted AS (
    DELETE FROM file f USING expired e
    WHERE f.organization_id = e.organization_id AND f.file_id = e.file_id
    RETURNING 1
)
SELECT count(*) FROM deleted;

-- name: list_files
-- The newest files of a conversation, newest first, with the message of their turn.
SELECT f.file_id, f.turn_id, f.direction, f.name, f.media_type, f.size, f.sha256, f.created_at, t.message_id
FROM (
    SELECT * FROM file
    WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s
        AND conversation_id = %(conversation_id)s AND turn_id IS NOT NULL
    ORDER BY created_at DESC, file_id LIMIT %(limit)s
) f
LEFT JOIN turn t ON t.organization_id = %(organization_id)s AND t.turn_id = f.turn_id
ORDER BY f.created_at DESC, f.file_id;

-- name: find_file
-- A file that a turn of this conversation has.
SELECT f.file_id, f.turn_id, f.direction, f.name, f.media_type, f.size, f.sha256, f.created_at, t.message_id
FROM file f
LEFT JOIN turn t ON t.organization_id = f.organization_id AND t.turn_id = f.turn_id
WHERE f.organization_id = %(organization_id)s AND f.file_id = %(file_id)s AND f.agent_id = %(agent_id)s
    AND f.conversation_id = %(conversation_id)s AND f.turn_id IS NOT NULL;

-- name: find_input_files
-- What came in with some turns, in the order in which it came.
SELECT f.file_id, f.turn_id, f.direction, f.name, f.media_type, f.size, f.sha256, f.created_at, t.message_id
FROM file f
JOIN turn t ON t.organization_id = f.organization_id AND t.turn_id = f.turn_id
WHERE f.organization_id = %(organization_id)s AND f.turn_id = ANY (%(turn_ids)s::text[]) AND f.direction = 'in'
    AND f.agent_id = %(agent_id)s AND f.conversation_id = %(conversation_id)s
ORDER BY t.accepted_at, t.turn_id, f.created_at, f.file_id;

-- name: read_file_chunk
-- One piece of a file.
SELECT data FROM file_chunk
WHERE organization_id = %(organization_id)s AND file_id = %(file_id)s AND chunk_no = %(chunk_no)s;

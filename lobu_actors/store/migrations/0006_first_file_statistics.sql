-- First statistics of the file tables, for the same reason and in the same way as those of 0002: without any, a prepared
-- statement may be answered from an index by its tenant alone until autovacuum has seen the table. Here, too, what
-- ANALYZE learnt stays until there are real rows to learn from.
DO $$
BEGIN
    LOCK TABLE file, file_chunk IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT 1 FROM file) THEN
        INSERT INTO file (organization_id, file_id, agent_id, conversation_id, turn_id, direction, name, media_type, size,
            sha256, created_at)
        SELECT 'sample', 'file-' || n, 'agent', 'conversation-' || n % 500, 'turn-' || n, 'in', 'name', 'type/subtype',
            1, md5(n::text), now() - n * interval '1 s'
        FROM generate_series(1, 5000) n;
        INSERT INTO file_chunk (organization_id, file_id, chunk_no, data)
        SELECT 'sample', 'file-' || n, c, 'x' FROM generate_series(1, 5000) n, generate_series(0, 1) c;
        ANALYZE file, file_chunk;
        TRUNCATE file, file_chunk;
    END IF;
END
$$;

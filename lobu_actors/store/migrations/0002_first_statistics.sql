-- First statistics. Without any, the planner takes every column for equally selective and may answer from any index
-- that begins with organization_id, and a prepared statement keeps such a plan until autovacuum has seen the tables.
-- So, once, while they are empty, they are shown what they will look like (one organization, few agents, many
-- conversations and turns) and emptied again. What ANALYZE learnt stays until it has real rows to learn from.
-- In a transaction of its own: TRUNCATE makes the planner forget a table's size only when an earlier one has made it.
DO $$
BEGIN
    -- All others need a row of this one, so nobody fills them meanwhile.
    LOCK TABLE organization IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT 1 FROM organization) THEN
        INSERT INTO organization (organization_id) VALUES ('sample');
        INSERT INTO conversation (organization_id, agent_id, conversation_id, user_id)
        SELECT 'sample', 'agent', 'conversation-' || n, 'user-' || n FROM generate_series(1, 500) n;
        INSERT INTO actor_lease (organization_id, kind, key, host_id, epoch)
        SELECT 'sample', 'conversation', 'conversation-' || n, 'host-' || n % 3, 1 FROM generate_series(1, 500) n;
        INSERT INTO turn (organization_id, turn_id, agent_id, conversation_id, message_id, content, on_busy, status,
            ended_at, position, first_seq)
        SELECT 'sample', 'turn-' || n, 'agent', 'conversation-' || n % 500, 'message-' || n, 'content', 'enqueue',
            'completed', now(), 0, 0
        FROM generate_series(1, 5000) n;
        INSERT INTO turn_marker (organization_id, turn_id, agent_id, conversation_id, accepted_at, owed_since)
        SELECT 'sample', 'turn-' || n, 'agent', 'conversation-' || n % 500, now() + n * interval '1 ms',
            now() + n * interval '1 ms'
        FROM generate_series(1, 1000) n;
        INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, status, host_id, epoch, attempt,
            ended_at)
        SELECT 'sample', 'run-' || n, 'agent', 'conversation-' || n % 500, ARRAY['turn-' || n], 'completed', 'host-1',
            1, 1, now()
        FROM generate_series(1, 5000) n;
        INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, epoch)
        SELECT 'sample', 'agent', 'conversation-' || n % 500, n, 'turn-' || n, 'complete', '{}', 1
        FROM generate_series(1, 5000) n;
        INSERT INTO transcript_segment (organization_id, agent_id, conversation_id, generation, run_id, seq,
            base_length, total_length, sha256, data)
        SELECT 'sample', 'agent', 'conversation-' || n % 500, 1, 'run-' || n, n, 0, 1, repeat('0', 64), '\x00'
        FROM generate_series(1, 5000) n;
        ANALYZE organization, conversation, actor_lease, turn, turn_marker, run, conversation_event,
            transcript_segment;
        TRUNCATE organization, conversation, actor_lease, turn, turn_marker, run, conversation_event,
            transcript_segment, api_key, agent;
    END IF;
END
$$;

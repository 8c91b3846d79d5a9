-- The index of what is overdue offered itself to whoever looks for a marker that is in a run: without statistics it seems
-- to be empty, and it was read whole. Only who asks for a deadline may use it.
DROP INDEX turn_marker_overdue;
CREATE INDEX turn_marker_overdue ON turn_marker (deadline_at) WHERE deadline_at IS NOT NULL;

-- First statistics of questions, posted snapshots and used tickets, for the same reason and in the same way as those of
-- 0002 and 0006.
DO $$
BEGIN
    LOCK TABLE question, posted_snapshot, used_ticket IN ACCESS EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT 1 FROM question) AND NOT EXISTS (SELECT 1 FROM posted_snapshot)
        AND NOT EXISTS (SELECT 1 FROM used_ticket) THEN
        INSERT INTO question (organization_id, question_id, agent_id, conversation_id, run_id, turn_id, prompt,
            created_at)
        SELECT 'sample', 'question-' || n, 'agent', 'conversation-' || n % 500, 'run-' || n, 'turn-' || n, 'prompt',
            now() - n * interval '1 s'
        FROM generate_series(1, 5000) n;
        INSERT INTO posted_snapshot (organization_id, run_id, agent_id, conversation_id, data)
        SELECT 'sample', 'run-' || n, 'agent', 'conversation-' || n, '\x00' FROM generate_series(1, 500) n;
        INSERT INTO used_ticket (organization_id, ticket_id, use_id, expires_at)
        SELECT 'sample', 'ticket-' || n, 'use-' || n, now() + n * interval '1 s' FROM generate_series(1, 5000) n;
        ANALYZE question, posted_snapshot, used_ticket;
        TRUNCATE question, posted_snapshot, used_ticket;
    END IF;
END
$$;

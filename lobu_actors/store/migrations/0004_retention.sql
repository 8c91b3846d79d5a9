-- What retention has to remember, and how it finds what is old.

-- Events up to this seq were deleted for their age. Tells a log that was trimmed from one that has lost its beginning.
ALTER TABLE conversation ADD COLUMN trimmed_to_seq bigint NOT NULL DEFAULT 0
    CONSTRAINT conversation_trimmed_what_was_there CHECK (trimmed_to_seq >= 0 AND trimmed_to_seq < next_event_seq);

-- Runs name their turns in an array, so a turn does not lead to its runs. Only ended ones: the partial index costs one
-- entry when a run ends, and never offers itself for finding a live run.
CREATE INDEX run_ended_by_conversation ON run (organization_id, agent_id, conversation_id, started_at)
    WHERE status <> 'live';

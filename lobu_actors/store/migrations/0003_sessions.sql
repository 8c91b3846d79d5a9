-- Sessions that do not come from the session file: what a worker with a file of its own posts, and what a conversation
-- carries over from an ended session into the next.

-- A snapshot that a worker posted for its live run. Nobody reads it as the conversation's snapshot: the terminal
-- statement of a completed run stores it as a segment, together with the reply.
CREATE TABLE posted_snapshot (
    organization_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, run_id)
);
CREATE INDEX posted_snapshot_by_conversation ON posted_snapshot (organization_id, agent_id, conversation_id);

-- What the runs of this generation are told of the one before it, until they have a session of their own.
ALTER TABLE conversation ADD COLUMN carried_summary text;

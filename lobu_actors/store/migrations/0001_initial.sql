-- The first schema. Every key begins with organization_id so that it can be a distribution column; `host` belongs to no
-- tenant, and `api_key` is looked up by its hash before the tenant is known.
--
-- Ids are text COLLATE "C": compared as bytes, so their order is that of Python and of UUIDv7, and no locale upgrade
-- can damage an index. Foreign keys stand only between tables that change rarely: on the path of a message each would
-- cost a lookup and a row lock, and what they would guard is guarded by the statements themselves.

CREATE TABLE organization (
    organization_id text COLLATE "C" PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE api_key (
    key_hash text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL REFERENCES organization,
    user_id text COLLATE "C" NOT NULL,
    role text NOT NULL CONSTRAINT api_key_role CHECK (role IN ('admin', 'user')),
    label text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_key_organization ON api_key (organization_id, created_at);

CREATE TABLE agent (
    organization_id text COLLATE "C" NOT NULL REFERENCES organization,
    agent_id text COLLATE "C" NOT NULL,
    worker text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    owner_user_id text COLLATE "C",
    -- The agent's own default model; a conversation may name another.
    model text,
    settings jsonb NOT NULL DEFAULT '{}',
    -- Deadlines, failure rules and guardrails as configured: any host must be able to run the conversation by them.
    policy jsonb NOT NULL DEFAULT '{}',
    disabled boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, agent_id)
);

CREATE TABLE conversation (
    organization_id text COLLATE "C" NOT NULL REFERENCES organization,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    model text,
    provider text,
    generation integer NOT NULL DEFAULT 1,
    -- The seq that the next event gets. Allotted by updating this row in the statement that inserts the event, so that
    -- numbers have no gap (a sequence would have them) and the order of numbers is the order of commits.
    next_event_seq bigint NOT NULL DEFAULT 1 CHECK (next_event_seq >= 1),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Set by statements that change this row anyway; what is newer is read from the markers. Accepting a message must
    -- not change a row that the owner changes too.
    last_activity_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    closing_at timestamptz,
    closed_at timestamptz,
    PRIMARY KEY (organization_id, agent_id, conversation_id),
    CONSTRAINT conversation_once_per_organization UNIQUE (organization_id, conversation_id),
    CONSTRAINT conversation_closed_after_closing CHECK (closed_at IS NULL OR closing_at IS NOT NULL)
) WITH (fillfactor = 80); -- room for in-page (HOT) updates: one for each terminal event
CREATE INDEX conversation_by_age ON conversation (organization_id, created_at DESC);
CREATE INDEX conversation_to_close ON conversation (closing_at) WHERE closing_at IS NOT NULL AND closed_at IS NULL;

CREATE TABLE host (
    host_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    link_url text,
    version text NOT NULL,
    state text NOT NULL CONSTRAINT host_state CHECK (state IN ('active', 'draining', 'dead')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50); -- renewed every two seconds

-- The right to run one actor. A holder is a holder only while its host is alive; whoever writes under a lease locks
-- this row FOR SHARE in the same statement and names host and epoch, so a takeover waits for it or fences it off.
CREATE TABLE actor_lease (
    organization_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    host_id text COLLATE "C", -- NULL: released; the row stays because the epoch must never go back
    epoch bigint NOT NULL,
    acquired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, kind, key)
) WITH (fillfactor = 80);
CREATE INDEX actor_lease_by_host ON actor_lease (host_id);

CREATE TABLE turn (
    organization_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    content text NOT NULL,
    on_busy text NOT NULL
        CONSTRAINT turn_on_busy CHECK (on_busy IN ('enqueue', 'merge', 'steer', 'interrupt', 'reject')),
    payload jsonb NOT NULL DEFAULT '{}', -- the client's further fields, for the worker
    status text NOT NULL DEFAULT 'queued'
        CONSTRAINT turn_status CHECK (status IN ('queued', 'running', 'completed', 'failed', 'timeout', 'cancelled')),
    attempt integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0), -- attempts that count against the maximum
    position integer NOT NULL, -- turns owed before it when it was accepted
    first_seq bigint NOT NULL, -- a replay from behind this seq shows all of this turn
    error_code text,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz, -- of the newest attempt
    ended_at timestamptz,
    PRIMARY KEY (organization_id, turn_id),
    CONSTRAINT turn_once_per_message UNIQUE (organization_id, agent_id, conversation_id, message_id),
    CONSTRAINT turn_ended_when_terminal CHECK ((ended_at IS NULL) = (status IN ('queued', 'running')))
) WITH (fillfactor = 85); -- two in-page updates in a life

-- What is owed: the row's existence IS the obligation. Small, every row short-lived.
CREATE TABLE turn_marker (
    organization_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    accepted_at timestamptz NOT NULL, -- the turn's; here too, so that the queue is read from this table
    -- The same time again, for the sweeper's index alone: an index on accepted_at would offer itself for reading one
    -- conversation's queue in order, and the planner takes the offer while the table is nearly empty.
    owed_since timestamptz NOT NULL,
    deadline_at timestamptz,
    provider_failed_code text,
    -- Routing: who runs it, in which run. NULL while it is queued, which also makes counting cheap.
    host_id text COLLATE "C",
    run_id text COLLATE "C",
    PRIMARY KEY (organization_id, turn_id)
) WITH (
    fillfactor = 70,
    -- Rows live for seconds, so dead ones outnumber the living: clean up by count, at once and without pauses, or every
    -- look for the oldest marker walks over the dead.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX turn_marker_queue ON turn_marker (organization_id, agent_id, conversation_id, accepted_at, turn_id);
CREATE INDEX turn_marker_sweep ON turn_marker (owed_since); -- across tenants: the sweeper asks for the oldest

CREATE TABLE run (
    organization_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    turn_ids text[] NOT NULL,
    status text NOT NULL DEFAULT 'live'
        CONSTRAINT run_status CHECK (status IN ('live', 'completed', 'failed', 'timeout', 'cancelled', 'requeued')),
    host_id text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL,
    -- The lease's epoch when the run was ended, maybe by a successor: tells a repeated call whether it was its own.
    ended_epoch bigint,
    attempt integer NOT NULL,
    worker_pid integer,
    worker_started_at double precision, -- seconds since boot; with the pid the identity of the process
    exit_status text,
    error_code text,
    usage jsonb,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (organization_id, run_id),
    CONSTRAINT run_ended_unless_live CHECK ((ended_at IS NULL) = (status = 'live'))
) WITH (fillfactor = 85);
-- At most one live run per conversation, whatever the program believes.
CREATE UNIQUE INDEX run_one_live ON run (organization_id, agent_id, conversation_id) WHERE status = 'live';

CREATE TABLE conversation_event (
    organization_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    turn_id text COLLATE "C",
    type text COLLATE "C" NOT NULL CONSTRAINT conversation_event_type CHECK (type IN (
        'question', 'question-answered', 'cancel', 'restart', 'complete', 'agent-error', 'cancelled', 'closed')),
    data jsonb NOT NULL,
    run_id text COLLATE "C",
    attempt integer,
    text_offset bigint,
    epoch bigint NOT NULL, -- of the lease under which it was written: names the writer
    append_key text COLLATE "C", -- hash of an event that ends nothing, so that asking again appends nothing
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, agent_id, conversation_id, seq)
);
-- One terminal event per turn, whatever the program believes.
CREATE UNIQUE INDEX conversation_event_one_terminal ON conversation_event (organization_id, turn_id)
    WHERE type IN ('complete', 'agent-error', 'cancelled');
CREATE UNIQUE INDEX conversation_event_append_once
    ON conversation_event (organization_id, agent_id, conversation_id, epoch, append_key) WHERE append_key IS NOT NULL;

CREATE TABLE transcript_segment (
    organization_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    generation integer NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    -- The seq of the run's first terminal event: orders segments as they were committed, which run ids do not.
    seq bigint NOT NULL,
    base_length bigint NOT NULL CHECK (base_length >= 0),
    total_length bigint NOT NULL,
    sha256 text COLLATE "C" NOT NULL, -- of the whole file, hex
    -- Compressed by the server (the default, pglz, is in every build); it is only ever read whole.
    data bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, agent_id, conversation_id, generation, run_id),
    CONSTRAINT transcript_segment_length CHECK (total_length = base_length + octet_length(data))
);
CREATE UNIQUE INDEX transcript_segment_order
    ON transcript_segment (organization_id, agent_id, conversation_id, generation, seq);

CREATE TABLE file (
    organization_id text COLLATE "C" NOT NULL,
    file_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C",
    direction text NOT NULL CONSTRAINT file_direction CHECK (direction IN ('in', 'out')),
    name text NOT NULL,
    media_type text NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    sha256 text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, file_id)
);
CREATE INDEX file_by_conversation ON file (organization_id, agent_id, conversation_id, created_at);

-- A file's bytes, in pieces: none of them has to be held in memory whole.
CREATE TABLE file_chunk (
    organization_id text COLLATE "C" NOT NULL,
    file_id text COLLATE "C" NOT NULL,
    chunk_no integer NOT NULL CHECK (chunk_no >= 0),
    data bytea NOT NULL,
    PRIMARY KEY (organization_id, file_id, chunk_no),
    FOREIGN KEY (organization_id, file_id) REFERENCES file ON DELETE CASCADE
);
-- Media are mostly compressed already, and pieces are read in ranges.
ALTER TABLE file_chunk ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE question (
    organization_id text COLLATE "C" NOT NULL,
    question_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    turn_id text COLLATE "C" NOT NULL,
    prompt text NOT NULL,
    options jsonb,
    status text NOT NULL DEFAULT 'open' CONSTRAINT question_status CHECK (status IN ('open', 'answered', 'expired')),
    answer text,
    answered_by text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (organization_id, question_id)
);
CREATE INDEX question_by_conversation ON question (organization_id, agent_id, conversation_id, created_at);

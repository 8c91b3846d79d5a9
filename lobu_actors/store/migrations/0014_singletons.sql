-- What the cluster's singletons must remember. Both tables are written under their singleton's lease only (a row of
-- actor_lease of another kind than 'conversation').

CREATE TABLE watcher_state (
    organization_id text COLLATE "C" NOT NULL,
    watcher_id text COLLATE "C" NOT NULL,
    schedule text NOT NULL, -- as configured; another one begins anew, so that no past time of it counts as missed
    -- Firings up to here are dealt with: fired, or one with a later one.
    considered_until timestamptz NOT NULL,
    -- A firing that was decided on and is not known to be accepted. Written before it, so that whoever takes over makes
    -- this very one, and a predecessor that wakes up late cannot decide on another.
    pending_for timestamptz,
    last_fired_at timestamptz, -- the scheduled time
    PRIMARY KEY (organization_id, watcher_id)
);

-- What a chat is owed: a message's terminal event, or a sentence about a message that did not become a turn.
CREATE TABLE platform_delivery (
    organization_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL, -- one account on one platform: telegram:<bot id>
    delivery_id text COLLATE "C" NOT NULL,
    agent_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    address jsonb NOT NULL, -- where to; the platform's own form
    notice text, -- the sentence; NULL: what the message's terminal event says
    status text NOT NULL DEFAULT 'owed'
        CONSTRAINT platform_delivery_status CHECK (status IN ('owed', 'delivered', 'undeliverable')),
    parts_sent integer NOT NULL DEFAULT 0 CHECK (parts_sent >= 0),
    error text, -- why it is undeliverable
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (organization_id, channel, delivery_id),
    CONSTRAINT platform_delivery_ended_unless_owed CHECK ((ended_at IS NULL) = (status = 'owed'))
);
CREATE INDEX platform_delivery_owed ON platform_delivery (organization_id, channel, conversation_id, created_at)
    WHERE status = 'owed';
CREATE INDEX platform_delivery_by_age ON platform_delivery (organization_id, channel, created_at);

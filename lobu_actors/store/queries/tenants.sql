-- Organizations, API keys and agents.

-- name: insert_organization_if_new
-- Makes an organization; nothing when it is there.
INSERT INTO organization (organization_id) VALUES (%(organization_id)s)
ON CONFLICT DO NOTHING;

-- name: upsert_api_key_keeping_revocation
-- Inserts a key; the same hash in the same organization again changes label, role and expiry only.
INSERT INTO api_key AS k (key_hash, organization_id, user_id, role, label, expires_at)
VALUES (%(key_hash)s, %(organization_id)s, %(user_id)s, %(role)s, %(label)s, %(expires_at)s::timestamptz)
ON CONFLICT (key_hash) DO UPDATE
SET label = EXCLUDED.label, role = EXCLUDED.role, expires_at = EXCLUDED.expires_at
WHERE k.organization_id = EXCLUDED.organization_id;

-- name: find_api_key_if_valid
-- A key by its hash, unless it is expired or revoked.
SELECT key_hash, organization_id, user_id, role, label, created_at, expires_at, revoked_at
FROM api_key
WHERE key_hash = %(key_hash)s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp());

-- name: list_api_keys
-- All keys of an organization, oldest first.
SELECT key_hash, organization_id, user_id, role, label, created_at, expires_at, revoked_at
FROM api_key WHERE organization_id = %(organization_id)s
ORDER BY created_at, key_hash;

-- name: revoke_api_key_if_prefix_is_unique
-- Revokes the one key whose hash begins so; gives how many match.
WITH matching AS MATERIALIZED (
    SELECT key_hash FROM api_key
    WHERE organization_id = %(organization_id)s AND starts_with(key_hash, %(key_hash_prefix)s)
), revoked AS (
    UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp())
    WHERE key_hash IN (SELECT key_hash FROM matching) AND (SELECT count(*) FROM matching) = 1
)
SELECT count(*) FROM matching;

-- name: lock_agents
-- Waits until nobody else applies agents to this database; held to the end of the transaction. Two hosts that start at
-- once with different files would else each miss what the other is adding.
SELECT pg_advisory_xact_lock(hashtextextended('lobu agent', 0));

-- name: apply_agents
-- Upserts the given agents and disables the organization's others.
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(agents)s::jsonb) AS g (
        agent_id text, worker text, is_default boolean, owner_user_id text, model text, settings jsonb, policy jsonb,
        disabled boolean)
), applied AS (
    INSERT INTO agent (
        organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled)
    SELECT %(organization_id)s, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled
    FROM given
    ON CONFLICT (organization_id, agent_id) DO UPDATE
    SET worker = EXCLUDED.worker, is_default = EXCLUDED.is_default, owner_user_id = EXCLUDED.owner_user_id,
        model = EXCLUDED.model, settings = EXCLUDED.settings, policy = EXCLUDED.policy,
        disabled = EXCLUDED.disabled, updated_at = clock_timestamp()
)
UPDATE agent SET disabled = true, is_default = false, updated_at = clock_timestamp()
WHERE organization_id = %(organization_id)s AND NOT disabled
    AND NOT EXISTS (SELECT 1 FROM given g WHERE g.agent_id = agent.agent_id);

-- name: give_default_agent_where_there_is_none
-- Gives this default agent to every organization that has none; where an agent of that id is there, it is used as it is.
INSERT INTO agent AS a (organization_id, agent_id, worker, is_default, model, settings, policy)
SELECT o.organization_id, %(agent_id)s, %(worker)s, true, %(model)s, %(settings)s::jsonb, %(policy)s::jsonb
FROM organization o
WHERE NOT EXISTS (SELECT 1 FROM agent d WHERE d.organization_id = o.organization_id AND d.is_default)
ORDER BY o.organization_id
ON CONFLICT (organization_id, agent_id) DO UPDATE
SET is_default = true, disabled = false, updated_at = clock_timestamp()
WHERE a.owner_user_id IS NULL
RETURNING a.organization_id;

-- name: find_agent
-- An agent that is not disabled, by id.
SELECT organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled
FROM agent
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s AND NOT disabled;

-- name: find_default_agent
-- The organization's default agent.
SELECT organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled
FROM agent
WHERE organization_id = %(organization_id)s AND is_default;

-- name: list_agents
-- All agents of an organization, disabled ones too.
SELECT organization_id, agent_id, worker, is_default, owner_user_id, model, settings, policy, disabled
FROM agent WHERE organization_id = %(organization_id)s
ORDER BY agent_id;

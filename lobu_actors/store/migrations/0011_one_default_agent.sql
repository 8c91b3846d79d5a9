-- An organization's default agent: one at most, there for everybody, and enabled. That there is one is the start's doing.

-- What an older program or a hand may have left: of several defaults the first by id stays, as it was the one found.
UPDATE agent a SET is_default = false
WHERE is_default AND (disabled OR owner_user_id IS NOT NULL OR EXISTS (
    SELECT 1 FROM agent b
    WHERE b.organization_id = a.organization_id AND b.agent_id < a.agent_id
        AND b.is_default AND NOT b.disabled AND b.owner_user_id IS NULL));

-- Checked when the statement ends, which a unique index is not: one statement moves the default from agent to agent.
ALTER TABLE agent ADD CONSTRAINT agent_one_default
    EXCLUDE USING btree (organization_id WITH =) WHERE (is_default) DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE agent ADD CONSTRAINT agent_default_is_everybodys
    CHECK (NOT is_default OR (NOT disabled AND owner_user_id IS NULL));

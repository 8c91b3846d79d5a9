-- What an input guardrail said about a message, and files that are not yet, or not any more, part of a conversation.

-- Set with the turn or never: a turn that was refused ends without a run, whoever comes to own its conversation.
ALTER TABLE turn ADD COLUMN guardrail_code text;
ALTER TABLE turn ADD COLUMN guardrail_error text;
ALTER TABLE turn ADD CONSTRAINT turn_guardrail_whole CHECK ((guardrail_code IS NULL) = (guardrail_error IS NULL));

-- A file's bytes come before the statement that makes it part of a turn: until then it has no turn, nobody sees it, and
-- at this time it is deleted. NULL: it belongs to its turn. Bytes are many, so what is purged is only unbound in the
-- statement that purges, and deleted in bounded batches afterwards.
ALTER TABLE file ADD COLUMN expires_at timestamptz;
ALTER TABLE file ADD CONSTRAINT file_bound_or_expiring CHECK ((turn_id IS NULL) = (expires_at IS NOT NULL));
CREATE INDEX file_expiring ON file (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX file_by_turn ON file (organization_id, turn_id) WHERE turn_id IS NOT NULL;

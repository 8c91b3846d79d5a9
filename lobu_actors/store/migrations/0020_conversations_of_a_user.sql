-- oldest: 15
-- A page that lists the conversations of who is signed in. Not by last activity: every terminal event writes that, and an
-- index on it would end the in-page updates. Those that are ended are in no list.
CREATE INDEX conversation_by_user ON conversation (organization_id, user_id, created_at DESC)
    WHERE closing_at IS NULL;

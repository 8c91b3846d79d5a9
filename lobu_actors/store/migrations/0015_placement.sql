-- Whether a host tolerates others beside it on this database, and why not; NULL: it may be one of several, as hosts of the
-- release before (which knew of no other) are taken to be. And how many runs it had at its last renewal, so that placing a
-- conversation reads the few rows of this table and nothing else.
ALTER TABLE host
    ADD COLUMN alone text CONSTRAINT host_alone CHECK (alone IN ('not_allowed', 'file_sessions')),
    ADD COLUMN runs integer NOT NULL DEFAULT 0;

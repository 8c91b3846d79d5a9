-- oldest: 15
-- From when to when a host may conclude from another one's expired row that this host is gone. After an outage of the
-- database all rows have expired, and who comes back first must not take over from those that are about to. Hosts of the
-- release before write neither, and conclude it at any time.
ALTER TABLE host
    ADD COLUMN judges_from timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN judges_until timestamptz NOT NULL DEFAULT 'infinity';

-- oldest: 15
-- What a host's links to its peers were at its last renewal, for who looks at the cluster: {"up", "down", "peers": [[host,
-- up, lag in seconds], …]}. Written with the renewal and read by nothing that works. The list is short however many peers
-- there are; a host of the release before leaves it empty.
ALTER TABLE host ADD COLUMN links jsonb NOT NULL DEFAULT '{}';

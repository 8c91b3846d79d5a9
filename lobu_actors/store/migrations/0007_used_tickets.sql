-- Tickets that were used. A ticket is signed and opens one stream once; that it was used, every edge must know.

CREATE TABLE used_ticket (
    organization_id text COLLATE "C" NOT NULL,
    ticket_id text COLLATE "C" NOT NULL,
    -- By which call: the same call, asked again because its answer was lost, is no second use.
    use_id text COLLATE "C" NOT NULL,
    -- Long after the ticket itself has expired, so that clocks that differ do not make it usable again.
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, ticket_id)
);
CREATE INDEX used_ticket_expiring ON used_ticket (expires_at);

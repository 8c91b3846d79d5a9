-- oldest: 15
-- Whose turn it is to be restarted: one row for all hosts. `host_id` follows the host through its restart, so that others
-- see whether it is back; `ended_at` NULL and expired: whoever did it stopped in the middle.
CREATE TABLE rollout (
    single boolean PRIMARY KEY DEFAULT true CONSTRAINT rollout_one_row CHECK (single),
    rollout_id text NOT NULL,
    first_host_id text NOT NULL,
    host_id text NOT NULL,
    name text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);

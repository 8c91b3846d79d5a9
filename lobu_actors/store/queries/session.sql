-- What is said once on every new connection, and what migrations need.

-- name: prepare_session
-- Makes a session fit: known time zone; no just-in-time compiling of statements that take microseconds; commits that
-- are durable when they are answered even where the server's default is not; and a server that notices a vanished
-- client instead of keeping its locks for hours. Every statement here is meant to be answered from an index; a plan
-- that was cached while its tables were still empty would else read all of them once they have grown.
SELECT set_config('TimeZone', 'UTC', false), set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        false),
    set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '30000', false),
    set_config('idle_in_transaction_session_timeout', '60000', false);

-- name: begin
-- A migration happens whole, or not at all.
BEGIN;

-- name: commit
-- Ends what `begin` began.
COMMIT;

-- name: lock_migrations
-- Waits until nobody else migrates this database; held to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('lobu schema_migration', 0));

-- name: create_schema_migration
-- The table of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: has_schema_migration
-- Whether this database was ever migrated.
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: list_schema_migrations
-- Versions that are applied.
SELECT version, name FROM schema_migration ORDER BY version;

-- name: insert_schema_migration
-- Notes one as applied.
INSERT INTO schema_migration (version, name) VALUES (%(version)s, %(name)s);

-- What is said once on every new connection, and what migrations need.

-- name: prepare_session
-- Makes a session fit: known time zone; no just-in-time compiling of statements that take microseconds; commits that
-- are durable when they are answered even where the server's default is not; and a server that notices a vanished
-- client instead of keeping its locks for hours. Every statement here is meant to be answered from an index; a plan
-- that was cached while its tables were still empty would else read all of them once they have grown.
SELECT set_config('TimeZone', 'UTC', false), set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        false),
    set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '30000', false),
    set_config('idle_in_transaction_session_timeout', '60000', false);

-- name: set_server_timeouts
-- The server's side of what the client was told to set, where that is not what `prepare_session` has.
SELECT set_config('tcp_keepalives_idle', %(keepalives_idle)s, false),
    set_config('tcp_keepalives_interval', %(keepalives_interval)s, false),
    set_config('tcp_keepalives_count', %(keepalives_count)s, false),
    set_config('tcp_user_timeout', %(tcp_user_timeout)s, false);

-- name: session_pid
-- The process that runs this statement.
SELECT pg_backend_pid();

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
-- The table of applied migrations. sha256 is that of the file as it was applied.
CREATE TABLE IF NOT EXISTS schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text COLLATE "C",
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: add_schema_migration_checksum
-- For a table that was made before there were checksums.
ALTER TABLE schema_migration ADD COLUMN IF NOT EXISTS sha256 text COLLATE "C";

-- name: add_schema_migration_oldest
-- Programs that know this version run on a schema with the migration; NULL: those that know the migration itself.
ALTER TABLE schema_migration ADD COLUMN IF NOT EXISTS oldest integer;

-- name: fill_schema_migration_checksum_if_absent
-- Notes checksums for what was applied without: there is nothing to compare them with, so the files count as unchanged.
UPDATE schema_migration m SET sha256 = f.sha256
FROM jsonb_to_recordset(%(files)s::jsonb) AS f (version integer, sha256 text)
WHERE m.version = f.version AND m.sha256 IS NULL;

-- name: has_schema_migration
-- Whether this database was ever migrated.
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: list_schema_migrations
-- What is applied; the checksum is NULL where an older program applied it, also when the column is not there yet.
SELECT version, name, to_jsonb(m) ->> 'sha256', coalesce((to_jsonb(m) ->> 'oldest')::integer, version) FROM schema_migration m ORDER BY version;

-- name: insert_schema_migration
-- Notes one as applied.
INSERT INTO schema_migration (version, name, sha256, oldest)
VALUES (%(version)s, %(name)s, %(sha256)s, %(oldest)s);

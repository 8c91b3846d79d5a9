"""The one table of the services that have nothing but a table."""

SCHEMA = """
CREATE SEQUENCE IF NOT EXISTS turn_event;
CREATE TABLE IF NOT EXISTS turn (
    id text PRIMARY KEY,
    conversation text NOT NULL,
    content text NOT NULL,
    event text,
    reply text,
    number bigint
);
CREATE INDEX IF NOT EXISTS turn_ended ON turn (conversation, number) WHERE event IS NOT NULL;
CREATE INDEX IF NOT EXISTS turn_open ON turn (id) WHERE event IS NULL;
"""
FAIL_OPEN = "UPDATE turn SET event = 'agent-error', number = nextval('turn_event') WHERE event IS NULL"

-- oldest: 15
-- Reads the tables once, in a transaction of its own: this waits for nobody who writes to them, and nobody waits for it.
ALTER TABLE turn
    VALIDATE CONSTRAINT turn_on_busy,
    VALIDATE CONSTRAINT turn_status,
    VALIDATE CONSTRAINT turn_ended_when_terminal;
ALTER TABLE run VALIDATE CONSTRAINT run_status;
ALTER TABLE conversation_event VALIDATE CONSTRAINT conversation_event_type;

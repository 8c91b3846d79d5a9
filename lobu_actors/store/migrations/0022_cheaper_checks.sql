-- oldest: 15
-- The same conditions as before, said so that they cost less. The server reads a table's conditions anew for each statement
-- that writes to it: `status IN ('a', 'b')` as a list of constants that it makes an array of each time, `= ANY ('{a,b}')`
-- as that array. A turn meets these nine times. Not validated here, so that no table is read while it is locked; there is no
-- moment without a condition, and all rows that are there have met the one before.
ALTER TABLE turn
    DROP CONSTRAINT turn_on_busy,
    DROP CONSTRAINT turn_status,
    DROP CONSTRAINT turn_ended_when_terminal,
    ADD CONSTRAINT turn_on_busy CHECK (on_busy = ANY ('{enqueue,merge,steer,interrupt,reject}')) NOT VALID,
    ADD CONSTRAINT turn_status
        CHECK (status = ANY ('{queued,running,completed,failed,timeout,cancelled}')) NOT VALID,
    ADD CONSTRAINT turn_ended_when_terminal
        CHECK ((ended_at IS NULL) = (status = ANY ('{queued,running}'))) NOT VALID;
ALTER TABLE run
    DROP CONSTRAINT run_status,
    ADD CONSTRAINT run_status
        CHECK (status = ANY ('{live,completed,failed,timeout,cancelled,requeued}')) NOT VALID;
ALTER TABLE conversation_event
    DROP CONSTRAINT conversation_event_type,
    ADD CONSTRAINT conversation_event_type CHECK (type = ANY (
        '{question,question-answered,cancel,restart,complete,agent-error,cancelled,closed}')) NOT VALID;

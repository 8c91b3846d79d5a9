-- oldest: 15
-- What the owner of a run noticed while it ran: [milliseconds from the run's start, name, detail] of each, written by the
-- statement that ends the run. NULL: it was ended by somebody who did not see it. Programs of before do not write it.
ALTER TABLE run ADD COLUMN timeline jsonb;

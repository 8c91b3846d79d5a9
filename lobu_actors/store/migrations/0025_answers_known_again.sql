-- oldest: 15
-- By what the client of an answer calls it, when it was sent as a message: who sends it again finds the turn that it went to.
-- NULL: it has no name.
ALTER TABLE question ADD COLUMN answer_id text COLLATE "C";

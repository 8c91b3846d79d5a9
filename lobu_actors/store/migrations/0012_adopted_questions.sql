-- A run goes on under the next supervisor of its host, with the questions that it has asked. The worker knows them by its
-- own ids, which are unique in the run only; without them nobody could tell which question it asks again.
-- NULL: asked before this migration.
ALTER TABLE question ADD COLUMN worker_question_id text;

-- That somebody was told "accepted" to a cancel must outlive the supervisor that said so: whoever goes on with the run, or
-- finds it lost, ends it as cancelled.
ALTER TABLE run ADD COLUMN cancel_requested boolean NOT NULL DEFAULT false;

-- For the sweep's look at what is overdue; only running turns have a deadline.
CREATE INDEX turn_marker_overdue ON turn_marker (deadline_at) WHERE run_id IS NOT NULL;

-- oldest: 15
-- How many further workers a host could have at its last renewal; NULL: it does not say. A conversation that finds none at
-- one host begins at another.
ALTER TABLE host ADD COLUMN room integer;

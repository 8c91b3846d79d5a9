-- oldest: 18
-- API keys of remote workers. A release that does not know the role refuses such a key alone, with an error in its log.
ALTER TABLE api_key DROP CONSTRAINT api_key_role;
ALTER TABLE api_key ADD CONSTRAINT api_key_role CHECK (role IN ('admin', 'user', 'worker'));

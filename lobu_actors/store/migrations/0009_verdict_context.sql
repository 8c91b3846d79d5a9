-- What a refused turn's terminal event tells beside its sentence, for programs: where a missing model can be named, for
-- one. Stored with the verdict, since whoever owns the conversation writes the event, and only the edge knows addresses.
ALTER TABLE turn ADD COLUMN guardrail_context jsonb;
ALTER TABLE turn ADD CONSTRAINT turn_guardrail_context CHECK (
    guardrail_context IS NULL OR guardrail_code IS NOT NULL AND jsonb_typeof(guardrail_context) = 'object');

-- Questions to a person. A question is open while nobody has answered it and its run still owes its turn: the end of
-- the turn withdraws it without a write of its own, since the turn's marker is gone then.

-- name: ask_question_if_lease_held
-- Records a question and appends its event, in one; nothing when the lease is lost or the run is not live.
WITH held AS MATERIALIZED (
    SELECT epoch FROM actor_lease
    WHERE organization_id = %(organization_id)s AND kind = 'conversation' AND key = %(conversation_id)s
        AND host_id = %(host_id)s AND epoch = %(epoch)s
    FOR SHARE
), asked AS (
    INSERT INTO question (organization_id, question_id, agent_id, conversation_id, run_id, turn_id, prompt, options,
        worker_question_id)
    SELECT %(organization_id)s, %(question_id)s, %(agent_id)s, %(conversation_id)s, %(run_id)s, %(turn_id)s,
        %(prompt)s, %(options)s::jsonb, %(worker_question_id)s
    FROM held, run r
    WHERE r.organization_id = %(organization_id)s AND r.run_id = %(run_id)s AND r.agent_id = %(agent_id)s
        AND r.conversation_id = %(conversation_id)s AND r.status = 'live'
    ON CONFLICT DO NOTHING
    RETURNING question_id
), seqs AS (
    UPDATE conversation c SET next_event_seq = next_event_seq + 1, last_activity_at = clock_timestamp()
    FROM asked
    WHERE c.organization_id = %(organization_id)s AND c.agent_id = %(agent_id)s
        AND c.conversation_id = %(conversation_id)s
    RETURNING c.next_event_seq - 1 AS first
)
INSERT INTO conversation_event (organization_id, agent_id, conversation_id, seq, turn_id, type, data, run_id, attempt,
    text_offset, epoch)
SELECT %(organization_id)s, %(agent_id)s, %(conversation_id)s, seqs.first, %(turn_id)s, 'question', %(data)s::jsonb,
    %(run_id)s, %(attempt)s, %(text_offset)s, %(epoch)s
FROM seqs
RETURNING seq, turn_id, type, data, run_id, attempt, text_offset;

-- name: find_asked_question
-- The event of a question that was recorded earlier under this very lease.
SELECT e.seq, e.turn_id, e.type, e.data, e.run_id, e.attempt, e.text_offset
FROM conversation_event e
WHERE e.organization_id = %(organization_id)s AND e.agent_id = %(agent_id)s
    AND e.conversation_id = %(conversation_id)s AND e.type = 'question' AND e.epoch = %(epoch)s AND e.data ->> 'questionId' = %(question_id)s;

-- name: answer_question
-- The first answer wins: (its turn is still owed, this answer won, now or when it was given before by the same user).
WITH found AS MATERIALIZED (
    SELECT q.question_id, q.status, q.answer, q.answered_by, EXISTS (
        SELECT 1 FROM turn_marker m
        WHERE m.organization_id = q.organization_id AND m.turn_id = q.turn_id AND m.run_id = q.run_id) AS owed
    FROM question q
    WHERE q.organization_id = %(organization_id)s AND q.question_id = %(question_id)s AND q.agent_id = %(agent_id)s
        AND q.conversation_id = %(conversation_id)s
    FOR NO KEY UPDATE OF q
), answered AS (
    UPDATE question q SET status = 'answered', answer = %(answer)s, answered_by = %(answered_by)s,
        answer_id = %(answer_id)s, ended_at = clock_timestamp()
    FROM found
    WHERE q.organization_id = %(organization_id)s AND q.question_id = %(question_id)s AND found.status = 'open'
        AND found.owed
    RETURNING q.question_id
)
SELECT found.status, found.owed, EXISTS (SELECT 1 FROM answered)
    OR (found.status = 'answered' AND found.answer = %(answer)s AND found.answered_by = %(answered_by)s)
FROM found;

-- name: find_answered_question
-- The question that was answered by what its client calls so.
SELECT question_id FROM question
WHERE organization_id = %(organization_id)s AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s
    AND answer_id = %(answer_id)s AND status = 'answered'
LIMIT 1;

-- name: find_answers
-- Those of some questions that somebody has answered.
SELECT question_id, answer FROM question
WHERE organization_id = %(organization_id)s AND question_id = ANY (%(question_ids)s::text[]) AND status = 'answered'
    AND agent_id = %(agent_id)s AND conversation_id = %(conversation_id)s;

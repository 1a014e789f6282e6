-- Puts the letters that held.sql locks back into the queue, and writes that to the audit. $16: see dead_letter_count.sql.
--
-- The error goes with the attempts, into the audit: a row that waits says nothing that is no longer true of it.
WITH {held},
requeued AS (
    UPDATE outbox_events AS event
    SET status = 'PENDING', attempt_count = 0, last_error = '', available_at = statement_timestamp()
    FROM held
    WHERE event.id = held.id
    RETURNING event.id, held.attempt_count, held.last_error, held.available_at AS last_attempt_by
),
audited AS (
    INSERT INTO outbox_audit (actor, action, event_id, request_id, reason, before, after)
    SELECT $13::text, 'requeue', id, $12::uuid, $14::text,
           jsonb_build_object('status', 'FAILED', 'attempt_count', attempt_count, 'last_error', last_error),
           '{"status": "PENDING", "attempt_count": 0, "last_error": ""}'
    FROM requeued
    RETURNING event_id
)
SELECT (SELECT created_at FROM next) AS next_created_at,
       (SELECT id FROM next) AS next_id,
       ARRAY(SELECT event_id FROM audited) AS changed,
       (
           SELECT count(*)
           FROM requeued
           WHERE $16::bigint > 0 AND last_attempt_by > now() - $16::bigint * interval '1 microsecond'
       ) AS recent

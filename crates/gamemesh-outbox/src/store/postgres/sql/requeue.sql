-- Puts the next $11 of the letters that $1 to $6 mean, oldest first, after ($7, $8) and up to ($9, $10), back into the
-- queue, and writes to the audit that request $12 of $13 did it, because of $14. $15: see dead_letter_count.sql.
--
-- Letters are picked without a lock, so that the place to go on from does not depend on what somebody else is doing to
-- them, and then locked in one order, in which two requests cannot deadlock. Whoever comes second finds them no longer
-- FAILED. A claim never sees a FAILED row, so neither waits for the other.
--
-- The error goes with the attempts, into the audit: a row that waits says nothing that is no longer true of it.
WITH meant AS MATERIALIZED (
    SELECT event.id, event.created_at
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND ($1::uuid[] IS NULL OR event.id = ANY ($1::uuid[]))
      AND ($2::text IS NULL OR event.topic = $2::text)
      AND ($3::text IS NULL OR event.event_type = $3::text)
      AND ($4::text IS NULL OR outbox_error_class(event.last_error) = $4::text)
      AND ($5::timestamptz IS NULL OR event.created_at >= $5::timestamptz)
      AND ($6::timestamptz IS NULL OR event.created_at < $6::timestamptz)
      AND ($7::timestamptz IS NULL OR (event.created_at, event.id) > ($7::timestamptz, $8::uuid))
      AND ($9::timestamptz IS NULL OR (event.created_at, event.id) <= ($9::timestamptz, $10::uuid))
    ORDER BY event.created_at, event.id
    LIMIT $11::bigint
),
held AS MATERIALIZED (
    SELECT event.id, event.attempt_count, event.last_error, event.available_at
    FROM meant
    JOIN outbox_events AS event ON event.id = meant.id
    WHERE event.status = 'FAILED'
      AND NOT EXISTS (
          SELECT FROM outbox_audit AS done WHERE done.request_id = $12::uuid AND done.event_id = event.id
      )
    ORDER BY meant.created_at, meant.id
    FOR UPDATE OF event
),
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
SELECT (SELECT count(*) FROM meant) AS meant,
       (SELECT created_at FROM meant ORDER BY created_at DESC, id DESC LIMIT 1) AS last_created_at,
       (SELECT id FROM meant ORDER BY created_at DESC, id DESC LIMIT 1) AS last_id,
       ARRAY(SELECT event_id FROM audited) AS changed,
       (
           SELECT count(*)
           FROM requeued
           WHERE $15::bigint > 0 AND last_attempt_by > now() - $15::bigint * interval '1 microsecond'
       ) AS recent

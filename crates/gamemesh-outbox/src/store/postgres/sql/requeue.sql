-- Puts the next $11 of the letters that $1 to $6 mean, oldest first, after ($7, $8) and up to ($9, $10), back into the
-- queue, and writes to the audit that request $12 of $13 did it, because of $14. $15: see dead_letter_count.sql.
--
-- Looks through at most $16 letters, so that a batch is short even where few of them are meant. The next one begins
-- after the last letter that was meant or, where those were fewer than a batch holds, looked at.
--
-- Letters are picked without a lock, so that the place to go on from does not depend on what somebody else is doing to
-- them, and then locked in one order, in which two requests cannot deadlock. Whoever comes second finds them no longer
-- FAILED. A claim never sees a FAILED row, so neither waits for the other.
--
-- The error goes with the attempts, into the audit: a row that waits says nothing that is no longer true of it.
WITH examined AS MATERIALIZED (
    SELECT event.id, event.created_at, event.topic, event.event_type, event.last_error
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND ($1::uuid[] IS NULL OR event.id = ANY ($1::uuid[]))
      AND ($5::timestamptz IS NULL OR event.created_at >= $5::timestamptz)
      AND ($6::timestamptz IS NULL OR event.created_at < $6::timestamptz)
      AND ($7::timestamptz IS NULL OR (event.created_at, event.id) > ($7::timestamptz, $8::uuid))
      AND ($9::timestamptz IS NULL OR (event.created_at, event.id) <= ($9::timestamptz, $10::uuid))
    ORDER BY event.created_at, event.id
    LIMIT $16::bigint
),
meant AS MATERIALIZED (
    SELECT id, created_at
    FROM examined
    WHERE ($2::text IS NULL OR topic = $2::text)
      AND ($3::text IS NULL OR event_type = $3::text)
      AND ($4::text IS NULL OR outbox_error_class(last_error) = $4::text)
    ORDER BY created_at, id
    LIMIT $11::bigint
),
next AS (
    (SELECT created_at, id FROM meant ORDER BY created_at, id OFFSET $11::bigint - 1 LIMIT 1)
    UNION ALL
    (SELECT created_at, id FROM examined ORDER BY created_at, id OFFSET $16::bigint - 1 LIMIT 1)
    ORDER BY created_at, id
    LIMIT 1
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
SELECT (SELECT created_at FROM next) AS next_created_at,
       (SELECT id FROM next) AS next_id,
       ARRAY(SELECT event_id FROM audited) AS changed,
       (
           SELECT count(*)
           FROM requeued
           WHERE $15::bigint > 0 AND last_attempt_by > now() - $15::bigint * interval '1 microsecond'
       ) AS recent

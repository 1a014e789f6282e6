-- Charges one attempt to each event in $1, keeps its error ($2), lets it wait ($3, microseconds by the database's clock)
-- and sets aside those that reach $4 attempts (0: never). One statement, so that no crash comes between counting an
-- attempt and acting on it. A counter that somebody set below zero or to the end of its range cannot fail the others.
UPDATE outbox_events AS event
SET attempt_count = charged.attempts,
    last_error = charged.error,
    available_at = statement_timestamp() + charged.wait_us * interval '1 microsecond',
    status = CASE WHEN $4::bigint > 0 AND charged.attempts >= $4::bigint THEN 'FAILED' ELSE 'PENDING' END
FROM (
    SELECT given.id, given.error, given.wait_us,
           least(greatest(coalesce(held.attempt_count, 0), 0), 2147483646) + 1 AS attempts
    FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS given (id, error, wait_us)
    JOIN outbox_events AS held ON held.id = given.id
) AS charged
WHERE event.id = charged.id AND event.status = 'PENDING'
RETURNING event.id, event.status = 'FAILED' AS failed

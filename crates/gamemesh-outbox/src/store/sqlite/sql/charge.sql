-- Counts an attempt and, in the same statement, sets aside the rows that reach the maximum (?2; 0 means never), so that
-- no crash can fall between the two. ?1: a JSON array of [id, error, seconds to wait]. The counter stays between 0 and
-- what fits into 32 bits, whatever was inserted.
WITH charge AS MATERIALIZED (
    SELECT value ->> 0 AS event_id, value ->> 1 AS error, value ->> 2 AS wait_seconds FROM json_each(?1)
)
UPDATE outbox_events
SET attempt_count = min(max(CAST(attempt_count AS INTEGER), 0) + 1, 2147483647),
    last_error = charge.error,
    available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', charge.wait_seconds)),
    status = CASE
        WHEN ?2 > 0 AND max(CAST(attempt_count AS INTEGER), 0) + 1 >= ?2 THEN 'FAILED'
        ELSE 'PENDING'
    END
FROM charge
WHERE outbox_events.id = charge.event_id AND outbox_events.status = 'PENDING'
RETURNING outbox_events.id, status = 'FAILED' AS dead_lettered

-- ?1: a JSON array of [id, seconds to wait].
WITH wait AS MATERIALIZED (
    SELECT value ->> 0 AS event_id, value ->> 1 AS wait_seconds FROM json_each(?1)
)
UPDATE outbox_events
SET available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', wait.wait_seconds))
FROM wait
WHERE outbox_events.id = wait.event_id AND outbox_events.status = 'PENDING'

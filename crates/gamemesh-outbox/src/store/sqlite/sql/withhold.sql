-- ?1: a JSON array of [id, reason, seconds to wait]. What becomes of these events could not be written.
WITH withheld AS MATERIALIZED (
    SELECT value ->> 0 AS event_id, value ->> 1 AS reason, value ->> 2 AS wait_seconds FROM json_each(?1)
)
UPDATE outbox_events
SET last_error = withheld.reason,
    available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('+%.3f seconds', withheld.wait_seconds))
FROM withheld
WHERE outbox_events.id = withheld.event_id AND outbox_events.status = 'PENDING'

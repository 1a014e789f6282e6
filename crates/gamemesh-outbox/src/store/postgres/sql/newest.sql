-- The newest $10 letters after ($7, $8) that may be meant, and where they end; NULL where no more follow.
WITH examined AS MATERIALIZED (
    SELECT event.id, event.topic, event.event_type, event.event_key, event.created_at, event.attempt_count,
           event.last_error, event.available_at
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND {is_within}
      AND ($7::timestamptz IS NULL OR (event.created_at, event.id) < ($7::timestamptz, $8::uuid))
    ORDER BY event.created_at DESC, event.id DESC
    LIMIT $10::bigint
),
examined_to AS (
    SELECT created_at, id FROM examined ORDER BY created_at DESC, id DESC OFFSET $10::bigint - 1 LIMIT 1
)

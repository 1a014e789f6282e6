-- Lists the letters that $1 to $6 mean, newest first, from ($7, $8) on, up to $9. No payload: it may be large, and it may
-- be secret. The statement is planned for the parameters it comes with, so those that are NULL cost nothing; the order
-- is that of idx_outbox_dead_letters.
SELECT event.id,
       coalesce(left(event.topic, 1024), '') AS topic,
       coalesce(left(event.event_type, 1024), '') AS event_type,
       left(event.event_key, 1024) AS event_key,
       coalesce(event.created_at, '-infinity') AS created_at,
       coalesce(event.attempt_count, 0) AS attempt_count,
       coalesce(left(event.last_error, 1024), '') AS last_error,
       event.available_at
FROM outbox_events AS event
WHERE event.status = 'FAILED'
  AND {is_within}
  AND {is_about}
  AND ($7::timestamptz IS NULL OR (event.created_at, event.id) < ($7::timestamptz, $8::uuid))
ORDER BY event.created_at DESC, event.id DESC
LIMIT $9::bigint

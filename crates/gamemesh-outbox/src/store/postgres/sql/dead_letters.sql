-- Lists events that were set aside, newest first. No payload: it may be large, and it may be secret.
SELECT id,
       coalesce(left(topic, 1024), '') AS topic,
       coalesce(left(event_type, 1024), '') AS event_type,
       coalesce(created_at, '-infinity') AS created_at,
       coalesce(attempt_count, 0) AS attempt_count,
       coalesce(left(last_error, 1024), '') AS last_error
FROM outbox_events
WHERE status = 'FAILED'
ORDER BY created_at DESC, id DESC
LIMIT $1::bigint

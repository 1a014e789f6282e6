-- Claims the oldest due events as claim.sql does, and reads nothing of them that anybody could have made unreadable.
SELECT event.id
FROM outbox_events AS event
WHERE event.status = 'PENDING'
  AND event.available_at <= now()
  AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
      SELECT paused.topic, paused.event_type FROM unnest($2::text[], $3::text[]) AS paused (topic, event_type)
  )
ORDER BY event.available_at, event.id
LIMIT $1::bigint
FOR UPDATE OF event SKIP LOCKED

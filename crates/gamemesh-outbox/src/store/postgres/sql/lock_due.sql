-- Claims the oldest due events of a part of the queue as claim.sql does, from ($5, $6) on and, where $7 is given, before
-- ($7, $8). Reads nothing of them that anybody could have made unreadable.
SELECT event.ctid AS place, event.id, event.available_at
FROM outbox_events AS event
WHERE event.status = 'PENDING'
  AND event.id IS NOT NULL
  AND event.available_at <= statement_timestamp()
  AND (event.available_at, event.id) >= ($5::timestamptz, $6::uuid)
  AND ($7::timestamptz IS NULL OR (event.available_at, event.id) < ($7::timestamptz, $8::uuid))
  AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
      SELECT paused.topic, paused.event_type FROM unnest($2::text[], $3::text[]) AS paused (topic, event_type)
  )
  AND event.id <> ALL ($4::uuid[])
ORDER BY event.available_at, event.id
LIMIT $1::bigint
FOR UPDATE OF event SKIP LOCKED

-- Counts the letters that $1 to $6 mean, and those of them that may have been sent within the last $7 microseconds: the
-- last attempt was made before available_at, which is that attempt plus a waiting time.
SELECT count(*) AS letters,
       count(*) FILTER (
           WHERE $7::bigint > 0 AND event.available_at > now() - $7::bigint * interval '1 microsecond'
       ) AS recent
FROM outbox_events AS event
WHERE event.status = 'FAILED'
  AND ($1::uuid[] IS NULL OR event.id = ANY ($1::uuid[]))
  AND ($2::text IS NULL OR event.topic = $2::text)
  AND ($3::text IS NULL OR event.event_type = $3::text)
  AND ($4::text IS NULL OR outbox_error_class(event.last_error) = $4::text)
  AND ($5::timestamptz IS NULL OR event.created_at >= $5::timestamptz)
  AND ($6::timestamptz IS NULL OR event.created_at < $6::timestamptz)

-- Lists the oldest $2 published events that are older than $1 microseconds, behind ($3, $4) where that is given.
SELECT id, published_at
FROM outbox_events
WHERE status = 'PUBLISHED'
  AND published_at < now() - $1::bigint * interval '1 microsecond'
  AND ($3::timestamptz IS NULL OR (published_at, id) > ($3::timestamptz, $4::uuid))
ORDER BY published_at, id
LIMIT $2::bigint

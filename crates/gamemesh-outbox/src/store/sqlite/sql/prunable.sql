-- Lists the oldest ?2 published events that are older than ?1 seconds, behind (?3, ?4) where that is given. A PUBLISHED row
-- without a time was marked by hand and is left alone.
SELECT id, published_at
FROM outbox_events
WHERE status = 'PUBLISHED'
  AND published_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?1))
  AND (?3 IS NULL OR (published_at, id) > (?3, ?4))
ORDER BY published_at, id
LIMIT ?2

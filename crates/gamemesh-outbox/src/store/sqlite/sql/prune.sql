-- Removes those of the rows ?1 (a JSON array of ids) that are still PUBLISHED and older than ?2 seconds.
DELETE FROM outbox_events
WHERE id IN (SELECT value FROM json_each(?1))
  AND status = 'PUBLISHED'
  AND published_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?2))

-- ?1: a JSON array of ids.
UPDATE outbox_events
SET status = 'PUBLISHED', published_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE id IN (SELECT value FROM json_each(?1)) AND status = 'PENDING'

-- Deletes the letters in ?1, a JSON array of ids.
DELETE FROM outbox_events
WHERE status = 'FAILED' AND id IN (SELECT value FROM json_each(?1))

-- ?1: a JSON array of ids.
DELETE FROM outbox_events
WHERE id IN (SELECT value FROM json_each(?1)) AND status = 'PENDING'

-- Lists those of the ids ?1 (a JSON array) that are still there, and PUBLISHED.
SELECT id FROM outbox_events WHERE id IN (SELECT value FROM json_each(?1)) AND status = 'PUBLISHED'

-- Counts those of ?1, a JSON array of ids, that are neither marked nor deleted: a trigger may have put back what they were.
SELECT count(*) FROM outbox_events WHERE id IN (SELECT value FROM json_each(?1)) AND status = 'PENDING'

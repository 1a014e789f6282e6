-- One payload, for its hash: one at a time, because each may be large.
SELECT CAST(payload AS BLOB) FROM outbox_events WHERE id = ?1

-- Removes acknowledged events, for OUTBOX_ON_PUBLISHED=delete: no second version of the row, nothing left to prune.
DELETE FROM outbox_events
WHERE id = ANY ($1::uuid[]) AND status = 'PENDING'

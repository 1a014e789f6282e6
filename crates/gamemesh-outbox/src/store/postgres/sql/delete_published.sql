-- Removes acknowledged events, for OUTBOX_ON_PUBLISHED=delete: no second version of the row, nothing left to prune. Places
-- and ids as in mark_published.sql.
DELETE FROM outbox_events
WHERE ctid = ANY ($1::tid[]) AND id = ANY ($2::uuid[]) AND status = 'PENDING'

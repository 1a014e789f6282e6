-- Marks acknowledged events, and says of each whether it is marked: a trigger may have put back what it was. The time is that
-- of this statement: now() would be the claim's, before the acknowledgement.
--
-- The rows are held, so they still lie where the claim found them ($1), and no index has to be searched. The ids ($2)
-- make sure: a place means something within one table only, and somebody may have divided this one into partitions.
UPDATE outbox_events
SET status = 'PUBLISHED', published_at = statement_timestamp()
WHERE ctid = ANY ($1::tid[]) AND id = ANY ($2::uuid[]) AND status = 'PENDING'
RETURNING status = 'PUBLISHED' AS marked

-- Marks acknowledged events. The time is that of this statement: now() would be the claim's, before the acknowledgement.
UPDATE outbox_events
SET status = 'PUBLISHED', published_at = statement_timestamp()
WHERE id = ANY ($1::uuid[]) AND status = 'PENDING'

-- Lists those of the events in $1, which were marked or deleted a moment ago, that wait again: a trigger may put back what was
-- done, after the statement has said that it did it.
SELECT id FROM outbox_events WHERE id = ANY ($1::uuid[]) AND status = 'PENDING'

-- Removes up to $2 published events that are older than $1 microseconds. SKIP LOCKED lets replicas prune side by side;
-- the array is computed once, where a subquery under IN might run again for each row and take more than its limit.
DELETE FROM outbox_events
WHERE id = ANY (ARRAY(
    SELECT id
    FROM outbox_events
    WHERE status = 'PUBLISHED' AND published_at < now() - $1::bigint * interval '1 microsecond'
    ORDER BY published_at
    LIMIT $2::bigint
    FOR UPDATE SKIP LOCKED
))

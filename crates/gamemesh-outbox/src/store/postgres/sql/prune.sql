-- Removes those of the rows $1 that are still PUBLISHED and older than $2 microseconds, and says of each whether it is gone.
-- SKIP LOCKED lets replicas prune side by side: what another one is removing is not spoken of.
WITH held AS MATERIALIZED (
    SELECT id
    FROM outbox_events
    WHERE id = ANY ($1::uuid[])
      AND status = 'PUBLISHED'
      AND published_at < now() - $2::bigint * interval '1 microsecond'
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM outbox_events WHERE id = ANY (ARRAY(SELECT id FROM held)) RETURNING id
)
SELECT held.id, gone.id IS NOT NULL AS is_gone
FROM held
LEFT JOIN gone ON gone.id = held.id

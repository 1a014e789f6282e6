-- The place of the ?4th letter after (?2, ?3), newest first: what lies beyond is left to the next look. ?1: see is_named.sql.
SELECT CAST(id AS BLOB) AS id, CAST(created_at AS BLOB) AS created_at
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_named}
  AND (created_at, id) < (coalesce(?2, x'ff'), coalesce(?3, x'ff'))
ORDER BY created_at DESC, id DESC
LIMIT 1 OFFSET ?4 - 1

-- The place of the ?6th letter after (?2, ?3) and up to (?4, ?5): what lies beyond is left to the next batch. ?1: see is_named.sql.
SELECT CAST(id AS BLOB) AS id, CAST(created_at AS BLOB) AS created_at
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_named}
  AND (created_at, id) > (coalesce(?2, ''), coalesce(?3, ''))
  AND (created_at, id) <= (coalesce(?4, x'ff'), coalesce(?5, x'ff'))
ORDER BY created_at, id
LIMIT 1 OFFSET ?6 - 1

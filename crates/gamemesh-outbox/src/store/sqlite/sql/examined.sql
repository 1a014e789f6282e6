-- The place of the ?6th letter after (?2, ?3) and up to (?4, ?5): what lies beyond is left to the next batch. ?1: see span.sql.
SELECT CAST(id AS BLOB) AS id, CAST(created_at AS BLOB) AS created_at
FROM outbox_events
WHERE status = 'FAILED'
  AND (?1 IS NULL OR id IN (SELECT value FROM json_each(?1)))
  AND (created_at, id) > (coalesce(?2, ''), coalesce(?3, ''))
  AND (created_at, id) <= (coalesce(?4, x'ff'), coalesce(?5, x'ff'))
ORDER BY created_at, id
LIMIT 1 OFFSET ?6 - 1

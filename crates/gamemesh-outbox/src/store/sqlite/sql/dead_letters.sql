-- The letters that ?1 to ?6 mean, newest first, after (?7, ?8) and up to (?9, ?10), at most ?11, without their payloads; every
-- text bounded and as bytes, see claim.sql. The list is in the order of idx_outbox_dead_letters.
SELECT
    CAST(id AS BLOB) AS id,
    CAST(substr(topic, 1, 256) AS BLOB) AS topic,
    CAST(substr(event_type, 1, 256) AS BLOB) AS event_type,
    CAST(substr(event_key, 1, 1024) AS BLOB) AS event_key,
    CAST(substr(created_at, 1, 64) AS BLOB) AS created_at,
    CAST(available_at AS BLOB) AS available_at,
    CAST(attempt_count AS INTEGER) AS attempt_count,
    CAST(substr(last_error, 1, 1024) AS BLOB) AS last_error
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_meant}
  AND (created_at, id) < (coalesce(?7, x'ff'), coalesce(?8, x'ff'))
  AND (created_at, id) >= (coalesce(?9, ''), coalesce(?10, ''))
ORDER BY created_at DESC, id DESC
LIMIT ?11

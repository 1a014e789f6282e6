-- The letters that ?1 to ?6 mean, newest first, from (?7, ?8) on, up to ?9, without their payloads; every text bounded and
-- as bytes, see claim.sql. ?1 is a JSON array of ids; what is NULL is not asked for. Times are compared in one spelling,
-- whatever they were inserted as; the list is in the order of idx_outbox_dead_letters.
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
  AND (?1 IS NULL OR id IN (SELECT value FROM json_each(?1)))
  AND (?2 IS NULL OR topic = ?2)
  AND (?3 IS NULL OR event_type = ?3)
  AND (?4 IS NULL OR ' ' || last_error = ' ' || ?4 COLLATE outbox_error_class)
  AND (?5 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) >= ?5)
  AND (?6 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) < ?6)
  AND (?7 IS NULL OR (created_at, id) < (?7, ?8))
ORDER BY created_at DESC, id DESC
LIMIT ?9

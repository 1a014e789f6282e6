-- The newest dead letters, without their payloads; every text bounded and as bytes, see claim.sql.
SELECT
    CAST(id AS BLOB),
    CAST(substr(topic, 1, 256) AS BLOB),
    CAST(substr(event_type, 1, 256) AS BLOB),
    CAST(substr(created_at, 1, 64) AS BLOB),
    CAST(available_at AS BLOB),
    CAST(attempt_count AS INTEGER),
    CAST(substr(last_error, 1, 2000) AS BLOB)
FROM outbox_events
WHERE status = 'FAILED'
ORDER BY created_at DESC, rowid DESC
LIMIT ?1

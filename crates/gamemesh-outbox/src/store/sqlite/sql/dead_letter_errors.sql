-- The errors of those of the newest ?7 letters that ?1 to ?6 mean: each with its number of letters and the times of the oldest
-- and the newest. The library groups them by class: SQLite has no regular expressions.
SELECT
    CAST(error AS BLOB) AS last_error,
    count(*) AS letters,
    CAST(min(inserted) AS BLOB) AS oldest,
    CAST(max(inserted) AS BLOB) AS newest
FROM (
    SELECT substr(last_error, 1, 1000) AS error, substr(created_at, 1, 64) AS inserted
    FROM (
        SELECT id, topic, event_type, last_error, created_at
        FROM outbox_events
        WHERE status = 'FAILED'
          AND {is_named}
        ORDER BY created_at DESC, id DESC
        LIMIT ?7
    )
    WHERE {is_meant}
)
GROUP BY 1
ORDER BY newest DESC

-- The errors of the newest ?7 of the letters that ?1 to ?6 mean: each with its number of letters and the times of the oldest
-- and the newest. The library groups them by class: SQLite has no regular expressions.
SELECT
    CAST(last_error AS BLOB) AS last_error,
    count(*) AS letters,
    CAST(min(created_at) AS BLOB) AS oldest,
    CAST(max(created_at) AS BLOB) AS newest
FROM (
    SELECT substr(last_error, 1, 1000) AS last_error, substr(created_at, 1, 64) AS created_at
    FROM outbox_events
    WHERE status = 'FAILED'
      AND {is_meant}
    ORDER BY outbox_events.created_at DESC, id DESC
    LIMIT ?7
)
GROUP BY 1
ORDER BY newest DESC

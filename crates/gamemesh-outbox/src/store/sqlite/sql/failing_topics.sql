-- Lists the ?1 topics with the most events that keep failing. Of each, the event whose turn comes last speaks for the
-- others: SQLite takes bare columns from the row that has the maximum.
SELECT
    CAST(substr(topic, 1, 1024) AS BLOB) AS name,
    count(*) AS failing,
    CAST(id AS BLOB) AS newest,
    CAST(substr(last_error, 1, 1024) AS BLOB) AS last_error,
    max(available_at)
FROM outbox_events
WHERE status = 'PENDING' AND attempt_count >= 3
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT ?1

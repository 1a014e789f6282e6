-- Lists the ?1 topics with the most events waiting, and for how many milliseconds the oldest due one of each has been due.
SELECT CAST(substr(topic, 1, 1024) AS BLOB) AS name,
       count(*) AS pending,
       CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at) FILTER (
           WHERE available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
       ), 'subsec')) * 1000 AS INTEGER) AS oldest_due_age_milliseconds
FROM outbox_events
WHERE status = 'PENDING'
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT ?1

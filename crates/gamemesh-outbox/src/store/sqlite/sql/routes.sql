-- Counts what waits by topic and type, and says for how many milliseconds the oldest due event of each has been due. Looks
-- at the first ?1 events of the queue alone, so that it is short however long the queue is; what waits longest stands there.
SELECT CAST(topic AS BLOB) AS topic,
       CAST(event_type AS BLOB) AS event_type,
       count(*) AS waiting,
       CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at) FILTER (
           WHERE available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
       ), 'subsec')) * 1000 AS INTEGER) AS oldest_due_age_milliseconds
FROM (
    SELECT substr(topic, 1, 1024) AS topic, substr(event_type, 1, 1024) AS event_type, available_at
    FROM outbox_events
    WHERE status = 'PENDING'
    ORDER BY available_at, id
    LIMIT ?1
)
GROUP BY 1, 2
ORDER BY 3 DESC, 1, 2
LIMIT 1000

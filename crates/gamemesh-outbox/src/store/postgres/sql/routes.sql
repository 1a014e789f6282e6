-- Counts what waits by topic and type, and says for how many seconds the oldest due event of each has been due. Looks at
-- the first $1 events of the queue alone, so that it is short however long the queue is; what waits longest stands there.
SELECT topic,
       event_type,
       count(*) AS waiting,
       extract(epoch FROM now() - min(available_at) FILTER (
           WHERE available_at > '-infinity' AND available_at <= now()
       ))::double precision AS oldest_due_age
FROM (
    SELECT coalesce(left(topic, 1024), '') AS topic, coalesce(left(event_type, 1024), '') AS event_type, available_at
    FROM outbox_events
    WHERE status = 'PENDING'
    ORDER BY available_at, id
    LIMIT $1::bigint
) AS head
GROUP BY 1, 2
ORDER BY 3 DESC, 1, 2
LIMIT 1000

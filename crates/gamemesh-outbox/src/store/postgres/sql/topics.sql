-- Lists the $1 topics with the most events waiting, and for how many seconds the oldest due one of each has been due.
SELECT coalesce(left(topic, 1024), '') AS topic,
       count(*) AS pending,
       extract(epoch FROM now() - min(available_at) FILTER (
           WHERE available_at > '-infinity' AND available_at <= now()
       ))::double precision AS oldest_due_age
FROM outbox_events
WHERE status = 'PENDING'
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT $1::bigint

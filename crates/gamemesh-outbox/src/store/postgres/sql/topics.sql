-- Lists the $1 topics with the most events waiting.
SELECT coalesce(left(topic, 1024), '') AS topic, count(*) AS pending
FROM outbox_events
WHERE status = 'PENDING'
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT $1::bigint

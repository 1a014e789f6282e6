-- Lists the ?1 topics with the most events waiting.
SELECT CAST(substr(topic, 1, 1024) AS BLOB) AS name, count(*) AS pending
FROM outbox_events
WHERE status = 'PENDING'
GROUP BY 1
ORDER BY 2 DESC, 1
LIMIT ?1

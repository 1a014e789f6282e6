-- Lists the $1 topics with the most events that keep failing. Of each, the event whose turn comes last speaks for the
-- others: it failed most recently or has failed most often.
SELECT failing.topic, failing.counted, newest.id, coalesce(left(newest.last_error, 1024), '') AS last_error
FROM (
    SELECT coalesce(left(topic, 1024), '') AS topic,
           count(*) AS counted,
           (array_agg(id ORDER BY available_at DESC, id DESC))[1] AS newest
    FROM outbox_events
    WHERE status = 'PENDING' AND attempt_count >= 3
    GROUP BY 1
    ORDER BY 2 DESC, 1
    LIMIT $1::bigint
) AS failing
JOIN outbox_events AS newest ON newest.id = failing.newest
ORDER BY failing.counted DESC, failing.topic

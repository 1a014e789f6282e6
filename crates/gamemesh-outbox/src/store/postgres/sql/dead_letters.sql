-- Lists the letters that $1 to $6 mean, newest first, after ($7, $8), up to $9, among the next $10. No payload: it may be
-- large, and it may be secret. The statement is planned for the parameters it comes with, so those that are NULL cost
-- nothing; the order is that of idx_outbox_dead_letters.
--
-- Without a bound a class of error that no letter has would be looked for in all of them, a second for some 50,000.
{newest},
meant AS (
    SELECT event.id,
           coalesce(left(event.topic, 1024), '') AS topic,
           coalesce(left(event.event_type, 1024), '') AS event_type,
           left(event.event_key, 1024) AS event_key,
           coalesce(event.created_at, '-infinity') AS created_at,
           coalesce(event.attempt_count, 0) AS attempt_count,
           coalesce(left(event.last_error, 1024), '') AS last_error,
           event.available_at
    FROM examined AS event
    WHERE {is_about}
    ORDER BY event.created_at DESC, event.id DESC
    LIMIT $9::bigint
)
-- One row at least, which says where the look ended.
SELECT meant.*,
       (SELECT created_at FROM examined_to) AS examined_created_at,
       (SELECT id FROM examined_to) AS examined_id
FROM (SELECT) AS one
LEFT JOIN meant ON true
ORDER BY meant.created_at DESC, meant.id DESC

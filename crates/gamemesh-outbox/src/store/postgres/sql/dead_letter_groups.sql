-- Groups the newest $7 of the letters that $1 to $6 mean by class of error: the $8 largest groups, largest first. Equal
-- errors are counted before they are classified, because classifying is what costs.
WITH examined AS MATERIALIZED (
    SELECT left(event.last_error, 1000) AS last_error, event.created_at
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND {is_within}
      AND {is_about}
    ORDER BY event.created_at DESC, event.id DESC
    LIMIT $7::bigint
),
by_error AS (
    SELECT coalesce(last_error, '') AS last_error,
           count(*) AS letters,
           min(created_at) AS oldest,
           max(created_at) AS newest
    FROM examined
    GROUP BY 1
)
SELECT outbox_error_class(last_error) AS error_class,
       sum(letters)::bigint AS letters,
       (array_agg(last_error ORDER BY newest DESC))[1] AS example,
       coalesce(min(oldest), '-infinity') AS oldest,
       coalesce(max(newest), '-infinity') AS newest,
       (SELECT count(*) FROM examined) AS examined
FROM by_error
GROUP BY 1
ORDER BY letters DESC, error_class
LIMIT $8::bigint

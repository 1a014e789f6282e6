-- Groups what $1 to $6 mean of the newest $7 letters by class of error: the $8 largest groups, largest first. Equal errors are
-- counted before they are classified, because classifying is what costs.
WITH examined AS MATERIALIZED (
    SELECT event.topic, event.event_type, event.last_error, event.created_at
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND {is_within}
    ORDER BY event.created_at DESC, event.id DESC
    LIMIT $7::bigint
),
by_error AS (
    SELECT coalesce(left(last_error, 1000), '') AS last_error,
           count(*) AS letters,
           min(created_at) AS oldest,
           max(created_at) AS newest
    FROM examined
    WHERE ($2::text IS NULL OR topic = $2::text)
      AND ($3::text IS NULL OR event_type = $3::text)
    GROUP BY 1
),
classified AS (
    SELECT outbox_error_class(last_error) AS error_class, last_error, letters, oldest, newest FROM by_error
),
by_class AS (
    SELECT error_class,
           sum(letters)::bigint AS letters,
           (array_agg(last_error ORDER BY newest DESC))[1] AS example,
           coalesce(min(oldest), '-infinity') AS oldest,
           coalesce(max(newest), '-infinity') AS newest
    FROM classified
    WHERE $4::text IS NULL OR error_class = $4::text
    GROUP BY 1
    ORDER BY letters DESC, error_class
    LIMIT $8::bigint
)
-- One row at least, which says how many were looked through.
SELECT by_class.*, (SELECT count(*) FROM examined) AS examined
FROM (SELECT) AS one
LEFT JOIN by_class ON true
ORDER BY by_class.letters DESC, by_class.error_class

-- Counts the letters that $1 to $6 mean, and those of them that may have been sent within the last $7 microseconds: the
-- last attempt was made before available_at, which is that attempt plus a waiting time.
SELECT count(*) AS letters,
       count(*) FILTER (
           WHERE $7::bigint > 0 AND event.available_at > now() - $7::bigint * interval '1 microsecond'
       ) AS recent
FROM outbox_events AS event
WHERE event.status = 'FAILED'
  AND {is_within}
  AND {is_about}

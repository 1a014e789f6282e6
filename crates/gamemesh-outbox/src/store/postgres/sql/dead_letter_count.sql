-- Counts the letters that $1 to $6 mean among the next $10 after ($7, $8), newest first, and those of them that may have been
-- sent within the last $9 microseconds: the last attempt was made before available_at, which is that attempt plus a waiting
-- time.
{newest}
SELECT count(*) AS letters,
       count(*) FILTER (
           WHERE $9::bigint > 0 AND event.available_at > now() - $9::bigint * interval '1 microsecond'
       ) AS recent,
       (SELECT created_at FROM examined_to) AS next_created_at,
       (SELECT id FROM examined_to) AS next_id
FROM examined AS event
WHERE {is_about}

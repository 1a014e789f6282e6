-- How many letters ?1 to ?6 mean after (?7, ?8) and up to (?9, ?10), newest first, and how many of them may have been sent
-- within the last ?11 seconds: the last attempt was made before available_at, which is that attempt plus a waiting time.
SELECT
    count(*),
    count(*) FILTER (
        WHERE ?11 > 0 AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?11))
    )
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_meant}
  AND (created_at, id) < (coalesce(?7, x'ff'), coalesce(?8, x'ff'))
  AND (created_at, id) >= (coalesce(?9, ''), coalesce(?10, ''))

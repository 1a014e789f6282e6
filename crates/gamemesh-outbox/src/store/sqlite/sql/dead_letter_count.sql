-- How many letters ?1 to ?6 mean, and how many of them may have been sent within the last ?7 seconds: the last attempt was
-- made before available_at, which is that attempt plus a waiting time.
SELECT
    count(*),
    count(*) FILTER (
        WHERE ?7 > 0 AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?7))
    )
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_meant}

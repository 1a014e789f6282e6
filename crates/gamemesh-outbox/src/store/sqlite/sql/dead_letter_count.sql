-- How many letters ?1 to ?6 mean, and how many of them may have been sent within the last ?7 seconds: the last attempt was
-- made before available_at, which is that attempt plus a waiting time.
SELECT
    count(*),
    count(*) FILTER (
        WHERE ?7 > 0 AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?7))
    )
FROM outbox_events
WHERE status = 'FAILED'
  AND (?1 IS NULL OR id IN (SELECT value FROM json_each(?1)))
  AND (?2 IS NULL OR topic = ?2)
  AND (?3 IS NULL OR event_type = ?3)
  AND (?4 IS NULL OR ' ' || last_error = ' ' || ?4 COLLATE outbox_error_class)
  AND (?5 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) >= ?5)
  AND (?6 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) < ?6)

-- Each part reads a partial index of its own; what is due later also reads the rows, the latest first and at most 100,000, to
-- leave out what waits for another attempt. The age is in milliseconds, by the same clock that made the row due.
SELECT
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING') AS pending,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3) AS failing,
    (
        SELECT count(*)
        FROM (
            SELECT attempt_count
            FROM outbox_events
            WHERE status = 'PENDING' AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 minute')
            ORDER BY available_at DESC
            LIMIT 100000
        )
        WHERE CAST(attempt_count AS INTEGER) <= 0
    ) AS due_later,
    coalesce(
        (
            SELECT CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at), 'subsec')) * 1000 AS INTEGER)
            FROM outbox_events
            WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        ),
        0
    ) AS oldest_due_age_milliseconds

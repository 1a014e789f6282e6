-- Each part reads a partial index of its own. The age is in milliseconds, by the same clock that made the row due.
SELECT
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING') AS pending,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    coalesce(
        (
            SELECT CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at), 'subsec')) * 1000 AS INTEGER)
            FROM outbox_events
            WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        ),
        0
    ) AS oldest_due_age_milliseconds

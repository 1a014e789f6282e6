-- Says how much is in each state, how long the oldest due event has been due (milliseconds), and when the oldest dead
-- letter was inserted. One subquery for each number, because each is answered by a partial index alone.
SELECT
    (
        SELECT count(*) FROM outbox_events
        WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS due,
    (
        SELECT count(*) FROM outbox_events
        WHERE status = 'PENDING' AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS waiting,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    (SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED') AS published,
    (
        SELECT CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at), 'subsec')) * 1000 AS INTEGER)
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS oldest_due_age_milliseconds,
    (SELECT CAST(min(created_at) AS BLOB) FROM outbox_events WHERE status = 'FAILED') AS oldest_dead_letter

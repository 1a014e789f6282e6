-- Says how much is in each state, how long the oldest due event has been due (milliseconds), and when the oldest of those
-- that keep failing and the oldest dead letter were inserted. One subquery for each number, because each is answered by a
-- partial index; only what is due later needs the rows, to leave out what waits for another attempt.
SELECT
    (
        SELECT count(*) FROM outbox_events
        WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS due,
    (
        SELECT count(*) FROM outbox_events
        WHERE status = 'PENDING' AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS waiting,
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3) AS failing,
    (
        SELECT CAST(min(created_at) AS BLOB) FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3
    ) AS oldest_failing,
    due_later.counted AS due_later,
    due_later.from_the_future,
    due_later.first AS due_later_first,
    due_later.last AS due_later_last,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    (SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED') AS published,
    (
        SELECT CAST(max(0, unixepoch('now', 'subsec') - unixepoch(min(available_at), 'subsec')) * 1000 AS INTEGER)
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    ) AS oldest_due_age_milliseconds,
    (SELECT CAST(min(created_at) AS BLOB) FROM outbox_events WHERE status = 'FAILED') AS oldest_dead_letter
FROM (
    SELECT
        count(*) AS counted,
        count(*) FILTER (WHERE created_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) AS from_the_future,
        CAST(min(available_at) AS BLOB) AS first,
        CAST(max(available_at) AS BLOB) AS last
    FROM outbox_events
    WHERE status = 'PENDING'
        AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 minute')
        AND CAST(attempt_count AS INTEGER) <= 0
) AS due_later

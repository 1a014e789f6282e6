-- Says how much is in each state, how long the oldest due event has been due (seconds), and when the oldest of those that
-- keep failing and the oldest dead letter were inserted. One subquery for each, because each is answered by a partial index;
-- only what is due later needs the rows, to leave out what waits for another attempt.
SELECT
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND available_at <= now()) AS due,
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND available_at > now()) AS waiting,
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3) AS failing,
    (SELECT min(created_at) FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3) AS oldest_failing,
    due_later.counted AS due_later,
    due_later.from_the_future,
    due_later.first AS due_later_first,
    due_later.last AS due_later_last,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    (SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED') AS published,
    (
        SELECT extract(epoch FROM now() - min(available_at))::double precision
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at > '-infinity' AND available_at <= now()
    ) AS oldest_due_age,
    (SELECT min(created_at) FROM outbox_events WHERE status = 'FAILED') AS oldest_dead_letter
FROM (
    SELECT count(*) AS counted,
           count(*) FILTER (WHERE created_at > now()) AS from_the_future,
           min(available_at) AS first,
           max(available_at) AS last
    FROM outbox_events
    WHERE status = 'PENDING' AND available_at > now() + interval '1 minute' AND coalesce(attempt_count, 0) <= 0
) AS due_later

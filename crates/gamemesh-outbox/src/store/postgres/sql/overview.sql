-- Says how much is in each state, how long the oldest due event has been due (seconds), and when the oldest dead letter
-- was inserted. One subquery for each number, because each is answered by a partial index alone.
SELECT
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND available_at <= now()) AS due,
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING' AND available_at > now()) AS waiting,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    (SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED') AS published,
    (
        SELECT extract(epoch FROM now() - min(available_at))::double precision
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at > '-infinity' AND available_at <= now()
    ) AS oldest_due_age,
    (SELECT min(created_at) FROM outbox_events WHERE status = 'FAILED') AS oldest_dead_letter

-- Counts what waits and what was set aside, and says for how many seconds the oldest due event has waited. Three
-- subqueries, because each of them is answered by a partial index alone. An infinite time has no age.
SELECT
    (SELECT count(*) FROM outbox_events WHERE status = 'PENDING') AS pending,
    (SELECT count(*) FROM outbox_events WHERE status = 'FAILED') AS failed,
    coalesce((
        SELECT extract(epoch FROM now() - min(available_at))
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at > '-infinity' AND available_at <= now()
    ), 0)::double precision AS oldest_due_age

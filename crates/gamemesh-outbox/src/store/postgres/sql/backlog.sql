-- Counts what waits and what was set aside, and says for how many seconds the oldest due event has waited. Separate
-- subqueries, because each of them is answered by a partial index alone. An infinite time has no age.
--
-- Counting ten million rows takes a core for seconds, and nobody acts on the difference: above a million it is the number
-- of entries of the index, as the server last counted them. What keeps failing and what is due only later should be few:
-- 100,000 are looked at. The latest of these come first, since a wrong time is rarely a little wrong; what waits for another
-- attempt is not among them.
SELECT
    CASE
        WHEN waiting.counted > 1000000 THEN greatest(waiting.counted, (
            SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('idx_outbox_due')
        ))
        ELSE waiting.counted
    END AS pending,
    CASE
        WHEN set_aside.counted > 1000000 THEN greatest(set_aside.counted, (
            SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('idx_outbox_dead_letters')
        ))
        ELSE set_aside.counted
    END AS failed,
    (
        SELECT count(*)
        FROM (
            SELECT FROM outbox_events WHERE status = 'PENDING' AND attempt_count >= 3 LIMIT 100000
        ) AS limited
    ) AS failing,
    (
        SELECT count(*) FILTER (WHERE coalesce(limited.attempt_count, 0) <= 0)
        FROM (
            SELECT attempt_count
            FROM outbox_events
            WHERE status = 'PENDING' AND available_at > now() + interval '1 minute'
            ORDER BY available_at DESC, id DESC
            LIMIT 100000
        ) AS limited
    ) AS due_later,
    coalesce((
        SELECT extract(epoch FROM now() - min(available_at))
        FROM outbox_events
        WHERE status = 'PENDING' AND available_at > '-infinity' AND available_at <= now()
    ), 0)::double precision AS oldest_due_age
FROM (
    SELECT count(*) AS counted FROM (SELECT FROM outbox_events WHERE status = 'PENDING' LIMIT 1000001) AS limited
) AS waiting
CROSS JOIN (
    SELECT count(*) AS counted FROM (SELECT FROM outbox_events WHERE status = 'FAILED' LIMIT 1000001) AS limited
) AS set_aside

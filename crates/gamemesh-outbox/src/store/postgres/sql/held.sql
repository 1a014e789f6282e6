-- Locks the next $11 of the letters that $1 to $6 mean, oldest first, after ($7, $8) and up to ($9, $10), for request $12 of
-- $13, which has its reason, $14. One that it has changed before is left alone.
--
-- Looks through at most $15 letters, so that a batch is short even where few of them are meant. The next one begins
-- after the last letter that was meant or, where those were fewer than a batch holds, looked at.
--
-- Letters are picked without a lock, so that the place to go on from does not depend on what somebody else is doing to
-- them, and then locked in one order, in which two requests cannot deadlock. Whoever comes second finds them no longer
-- FAILED. A claim never sees a FAILED row, so neither waits for the other.
examined AS MATERIALIZED (
    SELECT event.id, event.created_at, event.topic, event.event_type, event.last_error
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND {is_within}
      AND ($7::timestamptz IS NULL OR (event.created_at, event.id) > ($7::timestamptz, $8::uuid))
      AND ($9::timestamptz IS NULL OR (event.created_at, event.id) <= ($9::timestamptz, $10::uuid))
    ORDER BY event.created_at, event.id
    LIMIT $15::bigint
),
meant AS MATERIALIZED (
    SELECT event.id, event.created_at
    FROM examined AS event
    WHERE {is_about}
    ORDER BY event.created_at, event.id
    LIMIT $11::bigint
),
next AS (
    (SELECT created_at, id FROM meant ORDER BY created_at, id OFFSET $11::bigint - 1 LIMIT 1)
    UNION ALL
    (SELECT created_at, id FROM examined ORDER BY created_at, id OFFSET $15::bigint - 1 LIMIT 1)
    ORDER BY created_at, id
    LIMIT 1
),
held AS MATERIALIZED (
    SELECT event.id, event.attempt_count, event.last_error, event.available_at
    FROM meant
    JOIN outbox_events AS event ON event.id = meant.id
    WHERE event.status = 'FAILED'
      AND NOT EXISTS (
          SELECT FROM outbox_audit AS done WHERE done.request_id = $12::uuid AND done.event_id = event.id
      )
    ORDER BY meant.created_at, meant.id
    FOR UPDATE OF event
)

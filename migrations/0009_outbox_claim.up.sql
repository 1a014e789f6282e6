-- The claim, as a function, so that a session plans it once: planning takes longer than claiming a handful of events, and
-- a prepared statement would be lost, or be somebody else's, behind a pooler in transaction mode.
--
-- Claims the oldest due events from the place (after_at, after_id) in the queue on: up to events_max rows and bytes_max
-- bytes of payloads, headers and carriers, no payload above event_bytes_max bytes, and nothing of the routes in topics and
-- event_types, which pair up by position. The first event is claimed whatever its size, if any_size.
--
-- The row locks are the claim. SKIP LOCKED lets replicas take different rows without waiting for each other, and the
-- locks end with the transaction, however it ends.
--
-- Rows are written out after they are locked, once each (OFFSET 0 keeps the subquery apart): no sort, and no large row is
-- copied that does not fit. What lies beyond the budget comes without its payload; nothing happens to it, and it is free
-- when this transaction ends.
CREATE OR REPLACE FUNCTION outbox_claim(
    events_max      bigint,
    bytes_max       bigint,
    event_bytes_max bigint,
    topics          text[],
    event_types     text[],
    after_at        timestamptz,
    after_id        uuid,
    any_size        boolean
)
RETURNS TABLE (
    place         tid,
    id            uuid,
    topic         text,
    event_type    text,
    payload       text,
    payload_bytes bigint,
    carrier       text,
    headers       text,
    event_key     text,
    created_at    timestamptz,
    attempt_count integer,
    available_at  timestamptz,
    beyond        boolean
)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
SET plan_cache_mode = force_generic_plan
-- The queue is always walked in its order, whatever the statistics say of a table whose rows come and go.
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
-- The planner cannot know that so few rows are wanted: on a large table it would compile each of these anew.
SET jit = off
-- A batch of large payloads passes through memory, not through files.
SET work_mem = '16MB'
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT placed.place,
           placed.id,
           -- Longer than any bus takes: enough to be found invalid.
           left(placed.topic, 1024),
           left(placed.event_type, 1024),
           CASE WHEN payload_bytes <= event_bytes_max AND NOT beyond THEN payload_text END,
           payload_bytes,
           CASE WHEN NOT beyond THEN carrier_text END,
           CASE WHEN NOT beyond THEN headers_text END,
           left(placed.event_key, 4097),
           placed.created_at,
           placed.attempt_count,
           placed.available_at,
           beyond
    FROM (
        SELECT weighed.*,
               coalesce(
                   sum(weight) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + weight,
                   CASE WHEN any_size THEN 0 ELSE weight END
               ) > bytes_max AS beyond
        FROM (
            SELECT written.*,
                   coalesce(octet_length(payload_text), pg_column_size(payload))::bigint AS payload_bytes,
                   (
                       least(coalesce(octet_length(payload_text), 0), event_bytes_max)
                       + coalesce(octet_length(carrier_text), 0)
                       + coalesce(octet_length(headers_text), 0)
                   )::integer AS weight
            FROM (
                -- What takes this much on disk, compressed, is far too large as text, and writing it out could take a
                -- gigabyte.
                SELECT due.*,
                       CASE WHEN pg_column_size(payload) <= 8 * event_bytes_max THEN payload::text END AS payload_text,
                       -- Most have none, and text is dear.
                       CASE WHEN carrier <> '{}' THEN left(carrier::text, 16385) END AS carrier_text,
                       CASE WHEN headers <> '{}' THEN left(headers::text, 1048576) END AS headers_text
                FROM (
                    SELECT event.ctid AS place, event.id, event.topic, event.event_type, event.payload, event.carrier,
                           event.headers, event.event_key, event.created_at, event.attempt_count, event.available_at
                    FROM outbox_events AS event
                    WHERE event.status = 'PENDING'
                      -- The transaction may have begun with a wait.
                      AND event.available_at <= statement_timestamp()
                      AND (event.available_at, event.id) >= (after_at, after_id)
                      -- NOT IN stays a filter on the index scan; NOT EXISTS may become a join that sorts the whole backlog
                      -- first.
                      AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
                          SELECT paused.topic, paused.event_type FROM unnest(topics, event_types) AS paused (topic, event_type)
                      )
                    ORDER BY event.available_at, event.id
                    LIMIT events_max
                    FOR UPDATE OF event SKIP LOCKED
                ) AS due
                OFFSET 0
            ) AS written
        ) AS weighed
    ) AS placed;
END
$$;

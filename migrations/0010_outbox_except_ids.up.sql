-- The wait of 0008 and the claim of 0009, which also leave out single events (except_ids): those whose outcome could not be
-- written are not published again before it can be.
--
-- Neither has a search path of its own: names are resolved in that of whoever calls, as in every other statement of the
-- relay, so both go on after the schema is renamed or the table is moved. Relays from before this migration call the functions
-- of 0008 and 0009, which stay for them and are freed of theirs.

ALTER FUNCTION outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[]) RESET search_path;
ALTER FUNCTION outbox_claim(bigint, bigint, bigint, text[], text[], timestamptz, uuid, boolean) RESET search_path;

-- Waits as 0008 says.
CREATE OR REPLACE FUNCTION outbox_wait_for_due(
    at_most_ms  bigint,
    quiet_ms    bigint,
    start_in_ms bigint,
    after_at    timestamptz,
    after_id    uuid,
    topics      text[],
    event_types text[],
    except_ids  uuid[],
    OUT due_at        timestamptz,
    OUT start_look_us bigint
)
LANGUAGE plpgsql VOLATILE
-- Whatever the statistics say of a table whose rows come and go.
-- Planned once in a session: planning takes twenty times as long as looking.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
-- The planner cannot know that so few rows are wanted: on a large table it would compile each of these anew.
SET jit = off
AS $$
DECLARE
    began      constant timestamptz := clock_timestamp();
    start_at   timestamptz := began + start_in_ms * interval '1 millisecond';
    looked     timestamptz;
    from_start boolean;
    look_us    bigint;
    waited_ms  bigint;
BEGIN
    LOOP
        looked := clock_timestamp();
        from_start := looked >= start_at;
        SELECT event.available_at INTO due_at
        FROM outbox_events AS event
        WHERE event.status = 'PENDING'
          AND event.available_at <= looked
          AND (event.available_at, event.id) >= (
              CASE WHEN from_start THEN '-infinity' ELSE after_at END,
              CASE WHEN from_start THEN '00000000-0000-0000-0000-000000000000' ELSE after_id END
          )
          AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
              SELECT paused.topic, paused.event_type FROM unnest(topics, event_types) AS paused (topic, event_type)
          )
          AND event.id NOT IN (SELECT excepted.id FROM unnest(except_ids) AS excepted (id))
        ORDER BY event.available_at, event.id
        LIMIT 1
        FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;

        look_us := extract(epoch FROM clock_timestamp() - looked) * 1000000;
        IF from_start THEN
            start_look_us := look_us;
            start_at := clock_timestamp() + 20 * look_us * interval '1 microsecond';
        END IF;
        waited_ms := extract(epoch FROM clock_timestamp() - began) * 1000;
        EXIT WHEN waited_ms >= at_most_ms;
        PERFORM pg_sleep(least(
            greatest(1, (quiet_ms + waited_ms) / 50.0, look_us / 50.0),
            greatest(1, at_most_ms / 40.0),
            at_most_ms - waited_ms
        ) / 1000.0);
    END LOOP;
END
$$;

-- Claims as 0009 says.
CREATE OR REPLACE FUNCTION outbox_claim(
    events_max      bigint,
    bytes_max       bigint,
    event_bytes_max bigint,
    topics          text[],
    event_types     text[],
    except_ids      uuid[],
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
                      AND event.id NOT IN (SELECT excepted.id FROM unnest(except_ids) AS excepted (id))
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

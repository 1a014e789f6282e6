-- Waits inside the database until an event is due, so that an idle relay learns of it within milliseconds and yet asks
-- about once a second. Nothing is asked of producers, as a NOTIFY would (it takes a lock of the whole server at each commit,
-- it cannot be part of a prepared transaction, and no pooler in transaction mode delivers it).
--
-- It looks at the head of idx_outbox_due: every millisecond at first, ever more rarely while nothing comes (after
-- quiet_ms of quiet, every quiet_ms / 50, at most every at_most_ms / 40). SKIP LOCKED leaves out what a relay carries
-- already. Events of the routes in topics and event_types, which pair up by position, are not waited for.
--
-- Looks begin at the place (after_at, after_id), where the last claim ended; from the first event on only in start_in_ms
-- and then for a twentieth of the time. Dead index entries that an old transaction keeps alive lie in between.
--
-- Returns when the found event became due, NULL where there is none, and how long the last look from the start took, NULL
-- where there was none. Its caller runs it in READ COMMITTED: each look has a snapshot of its own.
CREATE OR REPLACE FUNCTION outbox_wait_for_due(
    at_most_ms  bigint,
    quiet_ms    bigint,
    start_in_ms bigint,
    after_at    timestamptz,
    after_id    uuid,
    topics      text[],
    event_types text[],
    OUT due_at        timestamptz,
    OUT start_look_us bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
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

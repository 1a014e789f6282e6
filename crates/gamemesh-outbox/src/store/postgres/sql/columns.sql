-- Says whether the tables and the functions exist where this connection looks for them, which columns the events have, and
-- which of the parts lie in another schema than the events, so that what is written into one may be looked for in another.
WITH events AS MATERIALIZED (
    SELECT oid, relnamespace FROM pg_class WHERE oid = to_regclass('outbox_events')
), parts AS (
    SELECT 'table ' || relname AS part, relnamespace AS schema FROM pg_class
    WHERE oid IN (to_regclass('outbox_audit'), to_regclass('outbox_migrations'))
    UNION ALL
    SELECT 'function ' || proname, pronamespace FROM pg_proc
    WHERE proname IN ('outbox_claim', 'outbox_wait_for_due') AND pg_function_is_visible(oid)
)
SELECT EXISTS (SELECT FROM events) AS exists,
       to_regclass('outbox_audit') IS NOT NULL AS has_audit,
       to_regprocedure('outbox_claim(bigint, bigint, bigint, text[], text[], uuid[], timestamptz, uuid, boolean)') IS NOT NULL
       AND to_regprocedure('outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[], uuid[])') IS NOT NULL
           AS has_functions,
       ARRAY(
           SELECT attname::text FROM pg_attribute
           WHERE attrelid = to_regclass('outbox_events') AND attnum > 0 AND NOT attisdropped
       ) AS columns,
       to_regclass('outbox_migrations') IS NOT NULL AS has_bookkeeping,
       current_setting('server_encoding') AS encoding,
       {without_policy} AS without_policy,
       -- Where CREATE would make something.
       current_schema()::text AS creates_in,
       (SELECT relnamespace::regnamespace::text FROM events) AS schema,
       ARRAY(
           SELECT DISTINCT part || ' in schema ' || parts.schema::regnamespace::text FROM parts, events
           WHERE parts.schema <> events.relnamespace
           ORDER BY 1
       ) AS apart,
       ARRAY(
           SELECT relnamespace::regnamespace::text FROM pg_class
           WHERE relname = 'outbox_events' AND relkind IN ('r', 'p') AND oid NOT IN (SELECT oid FROM events)
           ORDER BY 1
       ) AS elsewhere

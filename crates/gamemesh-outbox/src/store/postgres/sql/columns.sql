-- Says whether the tables and the functions exist where this connection looks for them, and which columns the events have.
SELECT to_regclass('outbox_events') IS NOT NULL AS exists,
       to_regclass('outbox_audit') IS NOT NULL AS has_audit,
       to_regprocedure('outbox_claim(bigint, bigint, bigint, text[], text[], timestamptz, uuid, boolean)') IS NOT NULL
       AND to_regprocedure('outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[])') IS NOT NULL
           AS has_functions,
       ARRAY(
           SELECT attname::text FROM pg_attribute
           WHERE attrelid = to_regclass('outbox_events') AND attnum > 0 AND NOT attisdropped
       ) AS columns,
       to_regclass('outbox_migrations') IS NOT NULL AS has_bookkeeping

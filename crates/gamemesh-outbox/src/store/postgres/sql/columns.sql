-- Says whether the table exists where this connection looks for it, and which columns it has.
SELECT to_regclass('outbox_events') IS NOT NULL AS exists,
       ARRAY(
           SELECT attname::text FROM pg_attribute
           WHERE attrelid = to_regclass('outbox_events') AND attnum > 0 AND NOT attisdropped
       ) AS columns,
       to_regclass('outbox_migrations') IS NOT NULL AS has_bookkeeping

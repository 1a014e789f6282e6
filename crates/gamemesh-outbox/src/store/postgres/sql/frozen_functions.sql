-- Lists the outbox's functions whose own search path leads to other events than this session's does, and that path: the
-- schema was renamed, or restored under another name, since they were made. set_config with true ends with the transaction.
WITH events AS MATERIALIZED (
    SELECT oid, relnamespace FROM pg_class WHERE oid = to_regclass('outbox_events')
), frozen AS MATERIALIZED (
    SELECT pg_proc.oid::regprocedure::text AS function, substr(setting, length('search_path=') + 1) AS path, events.oid AS events
    FROM events
    JOIN pg_proc ON pronamespace = events.relnamespace,
    unnest(proconfig) AS setting
    WHERE proname IN ('outbox_claim', 'outbox_invalid', 'outbox_publish', 'outbox_wait_for_due')
      AND setting LIKE 'search_path=%'
    -- All of them are found before the first path is tried.
    ORDER BY function
)
SELECT function, path FROM frozen
WHERE CASE WHEN set_config('search_path', path, true) IS NOT NULL THEN to_regclass('outbox_events') END
      IS DISTINCT FROM events::regclass

-- Lists the locks on the table beside which no event is claimed or marked, those first that are held. One that is waited for
-- counts as well: whoever comes later waits behind it. Only what lasts longer than $1 seconds; without pg_read_all_stats the
-- age of another role's transaction is hidden, and then it is listed.
SELECT *
FROM (
    SELECT lock.pid,
           coalesce(session.usename::text, prepared.owner::text, '') AS role,
           coalesce(session.application_name, '') AS application,
           coalesce(session.state, '') AS state,
           extract(epoch FROM clock_timestamp() - coalesce(session.xact_start, prepared.prepared))::double precision AS age,
           NULL::bigint AS transactions,
           left(session.query, 1024) AS query,
           prepared.gid AS prepared,
           lock.mode,
           lock.granted
    FROM pg_locks AS lock
    LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
    LEFT JOIN pg_prepared_xacts AS prepared ON lock.virtualtransaction = '-1/' || prepared.transaction::text
    WHERE lock.locktype = 'relation'
      AND lock.relation = to_regclass('outbox_events')
      AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND lock.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
) AS holder
WHERE age >= $1::double precision OR age IS NULL
ORDER BY granted DESC, age DESC NULLS LAST
LIMIT 10

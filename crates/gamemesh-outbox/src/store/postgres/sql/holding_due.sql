-- Lists the transactions of others that hold events which are due for longer than $1 seconds, and how many of the oldest
-- thousand each holds. $2 is the name that relays give themselves: those hold events to publish them.
--
-- A row names the transaction that locks it in xmax; where several lock it together it names none of them, and they are not
-- seen. Without pg_read_all_stats the age of another role's transaction is hidden, and then it is listed.
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
           held.events
    FROM (
        SELECT xmax AS transaction, count(*) AS events
        FROM (
            SELECT xmax FROM outbox_events
            WHERE status = 'PENDING' AND available_at <= clock_timestamp() - make_interval(secs => $1::double precision)
            ORDER BY available_at, id
            LIMIT 1000
        ) AS due
        GROUP BY xmax
    ) AS held
    JOIN pg_locks AS lock
        ON lock.locktype = 'transactionid' AND lock.granted AND lock.transactionid = held.transaction
    LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
    LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = held.transaction
) AS holder
WHERE application <> $2::text AND (age >= $1::double precision OR age IS NULL)
ORDER BY events DESC, pid
LIMIT 10

-- Lists who holds a snapshot or a transaction id of this database, the oldest first: no dead row that is younger can be
-- removed. Only what began more than $1 seconds ago; without pg_read_all_stats the age of another role's transaction is
-- hidden, and then it is listed when it holds back many transactions.
SELECT *
FROM (
    SELECT pid,
           coalesce(usename::text, '') AS role,
           coalesce(application_name, '') AS application,
           coalesce(state, '') AS state,
           extract(epoch FROM clock_timestamp() - xact_start)::double precision AS age,
           greatest(age(backend_xmin), age(backend_xid))::bigint AS transactions,
           left(query, 1024) AS query,
           NULL::text AS prepared
    FROM pg_stat_activity
    WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
      AND pid <> pg_backend_pid()
      AND (datid IS NULL OR datid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL
    SELECT NULL, owner::text, '', 'prepared', extract(epoch FROM clock_timestamp() - prepared)::double precision,
           age(transaction)::bigint, '', gid
    FROM pg_prepared_xacts
    WHERE database = current_database()
) AS holder
WHERE age >= $1::double precision OR (age IS NULL AND transactions > 100000)
ORDER BY transactions DESC NULLS LAST
LIMIT 10

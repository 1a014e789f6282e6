-- Lists replication slots. One that nobody reads keeps WAL, and perhaps dead rows, for ever.
SELECT slot_name::text AS name,
       slot_type AS kind,
       active,
       CASE WHEN NOT pg_is_in_recovery()
           THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
       END AS wal_bytes,
       age(xmin)::bigint AS transactions
FROM pg_replication_slots
ORDER BY slot_name

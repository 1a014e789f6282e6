-- Reads how well vacuum keeps up with the table.
SELECT stat.n_live_tup AS live,
       stat.n_dead_tup AS dead,
       extract(epoch FROM clock_timestamp() - greatest(stat.last_vacuum, stat.last_autovacuum))::double precision
           AS vacuumed_ago,
       EXISTS (
           SELECT FROM unnest(class.reloptions) AS option
           WHERE option IN ('autovacuum_enabled=false', 'autovacuum_enabled=off')
       ) AS autovacuum_disabled
FROM pg_stat_all_tables AS stat
JOIN pg_class AS class ON class.oid = stat.relid
WHERE stat.relid = to_regclass('outbox_events')

-- Says which backend answers and for how long it has existed. A backend that is older than the client's connection was
-- made for somebody else: a pooler is in between.
SELECT pg_backend_pid() AS pid,
       coalesce((
           SELECT extract(epoch FROM clock_timestamp() - backend_start)
           FROM pg_stat_activity
           WHERE pid = pg_backend_pid()
       ), 0)::double precision AS age

-- Lists who is connected under the name ($1) that relays give themselves. The name is a hint: anybody can take it. The
-- address of another user's connection is hidden from a role without pg_read_all_stats. $2 says whether this connection is
-- a relay's as well.
SELECT coalesce(host(client_addr), CASE WHEN backend_type IS NULL THEN 'hidden' ELSE 'local socket' END) AS client,
       count(*) AS connections
FROM pg_stat_activity
WHERE application_name = $1::text AND ($2::boolean OR pid <> pg_backend_pid())
  AND datid = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY 1
ORDER BY 1

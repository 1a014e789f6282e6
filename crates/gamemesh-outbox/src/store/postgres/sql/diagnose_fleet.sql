-- Lists sessions of this database whose last statement is one that only the earlier relay sends: its claim, its count of what is
-- pending, its marks. Its ORM quotes the table's name, ours does not. Between two polls the count is what is left to see.
-- Where this role may not see the statements of others, they are listed as hidden, in one row.
WITH session AS (
    SELECT pid,
           coalesce(usename::text, '') AS role,
           coalesce(application_name, '') AS application,
           coalesce(host(client_addr), 'a local socket') AS client,
           query,
           query = '<insufficient privilege>' AS hidden
    FROM pg_stat_activity
    WHERE datname = current_database()
      AND pid <> pg_backend_pid()
      -- Hidden where the statement is; only a client's session has a role then.
      AND (backend_type = 'client backend' OR backend_type IS NULL AND usesysid IS NOT NULL)
)
(SELECT pid, role, application, client, 0::bigint AS hidden
 FROM session
 WHERE NOT hidden
   AND application <> 'outbox-relay'
   AND (query ~* '^\s*select\s+\*\s+from\s+("?\w+"?\.)?"?outbox_events"?\s+where\s.*\sfor\s+update\s+skip\s+locked'
        OR query ~* '^\s*select\s+count\(\*\)\s+from\s+("\w+"\.)?"outbox_events"\s+where\s+"?status"?\s*='
        OR query ~* '^\s*update\s+("\w+"\.)?"outbox_events"\s+set\s.*"?(attempt_count|published_at)"?\s*=')
 ORDER BY pid
 LIMIT 10)
UNION ALL
SELECT NULL, '', '', '', count(*) FROM session WHERE hidden

-- Reads what the server and this session are like. Settings are those of this role and database; a producer's may differ.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::integer AS version_number,
    extract(epoch FROM clock_timestamp())::double precision AS clock,
    pg_is_in_recovery() AS standby,
    current_setting('fsync') = 'on' AS fsync,
    current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('default_transaction_read_only') = 'on' AS read_only,
    current_setting('autovacuum') = 'on' AS autovacuum,
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
        AS connections_max,
    -- Whoever is connected to a database: clients, and workers that take their places.
    (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL) AS connections_used,
    -- NULL where the client comes by a local socket.
    host(inet_client_addr()) AS client,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS tls,
    current_setting('server_encoding') AS encoding

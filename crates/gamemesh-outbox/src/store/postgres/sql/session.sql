-- Reads what this session is, and what it has of the settings that the connection string asks for ($1 the names, $2 the
-- values): a pooler may drop what it does not know. Values are compared as the server writes them, so a setting that looks
-- otherwise is set for this statement to see how it would look. set_config with true ends with the statement.
SELECT pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('transaction_timeout', true) IS NOT NULL AS limits_transactions,
       pg_client_encoding()::text AS client_encoding,
       host(inet_server_addr()) AS server_ip,
       inet_server_port() AS server_port,
       coalesce(array_agg(name ORDER BY place) FILTER (WHERE name IS NOT NULL), '{}') AS names,
       coalesce(array_agg(got ORDER BY place) FILTER (WHERE name IS NOT NULL), '{}') AS got,
       coalesce(array_agg(wanted ORDER BY place) FILTER (WHERE name IS NOT NULL), '{}') AS wanted
FROM (
    SELECT name, place, got, CASE WHEN got = value THEN got ELSE set_config(name, value, true) END AS wanted
    FROM (
        SELECT name, value, place, coalesce(current_setting(name, true), '') AS got
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (name, value, place)
        OFFSET 0
    ) AS found
) AS compared

-- The policies of row security on the events that this role is under.
(
    SELECT polname::text AS name,
           polcmd::text AS command,
           polpermissive AS permissive,
           coalesce(pg_get_expr(polqual, polrelid), 'true') <> 'true' AS conditional
    FROM pg_policy
    WHERE polrelid = to_regclass('outbox_events')
      AND (0 = ANY (polroles) OR EXISTS (SELECT FROM unnest(polroles) AS role WHERE pg_has_role(role, 'USAGE')))
)

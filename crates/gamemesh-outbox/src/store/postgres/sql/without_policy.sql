-- The commands of a claim for which row security has no policy that this role is in: no row is there for them, and nothing
-- fails. SELECT ... FOR UPDATE asks for both.
ARRAY(
    SELECT command FROM (VALUES ('r', 'SELECT'), ('w', 'UPDATE')) AS needed (code, command)
    WHERE row_security_active(to_regclass('outbox_events')) AND NOT EXISTS (
        SELECT FROM pg_policy
        WHERE polrelid = to_regclass('outbox_events') AND polpermissive AND polcmd::text IN ('*', code)
          AND (0 = ANY (polroles) OR EXISTS (SELECT FROM unnest(polroles) AS role WHERE pg_has_role(role, 'USAGE')))
    )
    ORDER BY command
)

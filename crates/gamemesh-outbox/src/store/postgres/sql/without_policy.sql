-- The commands of a claim for which row security has no policy that this role is under: no row is there for them, and nothing
-- fails. SELECT ... FOR UPDATE asks for both.
ARRAY(
    SELECT needed.command FROM (VALUES ('r', 'SELECT'), ('w', 'UPDATE')) AS needed (code, command)
    WHERE row_security_active(to_regclass('outbox_events')) AND NOT EXISTS (
        SELECT FROM {own_policies} AS policy WHERE policy.permissive AND policy.command IN ('*', needed.code)
    )
    ORDER BY needed.command
)

-- Lists what the present role may not do: what claiming, settling and (with $1) deleting need. A grant on
-- single columns is enough for UPDATE, and keeps a relay from changing payloads.
SELECT current_user::text AS role,
       {without_policy} AS without_policy,
       -- Policies by which events are seen, or changed, only under a condition, where no other one lets all be.
       ARRAY(
           SELECT policy.polname::text
           FROM pg_policy AS policy,
                LATERAL (SELECT coalesce(pg_get_expr(policy.polqual, policy.polrelid), 'true') <> 'true') AS shown (conditional)
           WHERE row_security_active(to_regclass('outbox_events'))
             AND policy.polrelid = to_regclass('outbox_events')
             AND policy.polcmd::text IN ('*', 'r', 'w')
             AND shown.conditional
             AND (0 = ANY (policy.polroles)
                  OR EXISTS (SELECT FROM unnest(policy.polroles) AS role WHERE pg_has_role(role, 'USAGE')))
             AND NOT (policy.polpermissive AND EXISTS (
                 SELECT FROM pg_policy AS other
                 WHERE other.polrelid = policy.polrelid AND other.polpermissive
                   AND other.polcmd::text IN ('*', policy.polcmd::text)
                   AND coalesce(pg_get_expr(other.polqual, other.polrelid), 'true') = 'true'
                   AND (0 = ANY (other.polroles)
                        OR EXISTS (SELECT FROM unnest(other.polroles) AS role WHERE pg_has_role(role, 'USAGE')))
             ))
           ORDER BY policy.polname
       ) AS conditional_policies,
       ARRAY(
           SELECT privilege FROM (
               SELECT 1 AS place, 'SELECT ON outbox_events' AS privilege
               WHERE NOT has_table_privilege(to_regclass('outbox_events'), 'SELECT')
               UNION ALL
               SELECT 2, format('UPDATE (%s) ON outbox_events', string_agg(name, ', ' ORDER BY place))
               FROM unnest(ARRAY['status', 'published_at', 'attempt_count', 'last_error', 'available_at'])
                   WITH ORDINALITY AS needed (name, place)
               WHERE NOT has_column_privilege(to_regclass('outbox_events'), name, 'UPDATE')
               HAVING count(*) > 0
               UNION ALL
               SELECT 3, 'DELETE ON outbox_events'
               WHERE $1::boolean AND NOT has_table_privilege(to_regclass('outbox_events'), 'DELETE')
               UNION ALL
               SELECT 4, format('EXECUTE ON FUNCTION %s', string_agg(needed, ', '))
               FROM unnest(ARRAY[
                   'outbox_claim(bigint, bigint, bigint, text[], text[], uuid[], timestamptz, uuid, boolean)',
                   'outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[], uuid[])'
               ]) AS needed
               WHERE NOT has_function_privilege(to_regprocedure(needed), 'EXECUTE')
               HAVING count(*) > 0
           ) AS missing
           ORDER BY place
       ) AS missing

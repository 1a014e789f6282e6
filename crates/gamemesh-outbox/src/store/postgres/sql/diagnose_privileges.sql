-- Lists what the present role may not do: what claiming, settling and (with $1) deleting need. A grant on
-- single columns is enough for UPDATE, and keeps a relay from changing payloads.
SELECT current_user::text AS role,
       {without_policy} AS without_policy,
       -- Policies by which events are seen, or changed, only under a condition, where no other one lets all be.
       ARRAY(
           SELECT policy.name
           FROM {own_policies} AS policy
           WHERE row_security_active(to_regclass('outbox_events'))
             AND policy.conditional AND policy.command IN ('*', 'r', 'w')
             AND NOT (policy.permissive AND EXISTS (
                 SELECT FROM {own_policies} AS other
                 WHERE other.permissive AND NOT other.conditional AND other.command IN ('*', policy.command)
             ))
           ORDER BY policy.name
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

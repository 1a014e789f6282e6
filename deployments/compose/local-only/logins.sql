-- Logins for docker-compose.yml, with passwords that anybody can read here. Runs after deployments/postgres/roles.sql
-- and may run again.
SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY['relay', 'player']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

ALTER ROLE relay LOGIN PASSWORD 'local-only-relay';
GRANT outbox_relay, outbox_pruner, outbox_operator TO relay;

ALTER ROLE player LOGIN PASSWORD 'local-only-player';
GRANT outbox_producer TO player;
-- The example service creates its own tables.
GRANT CREATE ON SCHEMA public TO player;

-- Roles for the outbox. Run it after `outbox-relay migrate up`, as a superuser or a role that may create roles and is a
-- member of the tables' owner, in the database and with the search_path of the outbox:
--
--   psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f deployments/postgres/roles.sql
--
-- Run it again after a migration; it changes only what differs. It creates no login and knows no password: make logins of
-- your own members of these roles. docs/security-roles.md says who needs which.

BEGIN;
-- What is dropped and made again need not be told.
SET LOCAL client_min_messages = warning;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[
        'outbox_owner',    -- owns the tables; for migrations only
        'outbox_producer', -- inserts events
        'outbox_relay',    -- claims, and writes what became of an event
        'outbox_deleter',  -- with OUTBOX_ON_PUBLISHED=delete: removes what was acknowledged
        'outbox_pruner',   -- with OUTBOX_RETENTION: removes PUBLISHED rows
        'outbox_operator', -- requeues and discards dead letters
        'outbox_viewer'    -- reads what is no payload
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END
$$;

-- Everything of the outbox gets one owner that nobody logs in as, and nobody else keeps a right from before.
DO $$
DECLARE
    object text;
BEGIN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO outbox_owner', current_schema());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO outbox_producer, outbox_relay, outbox_deleter, outbox_pruner, '
                   'outbox_operator, outbox_viewer', current_schema());
    FOR object IN
        SELECT format('TABLE %s', oid::regclass) FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
          AND relname IN ('outbox_events', 'outbox_migrations', 'outbox_audit')
        UNION ALL
        SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND proname IN (
            'outbox_publish', 'outbox_invalid', 'outbox_quoted', 'outbox_uuid_v7', 'outbox_error_class',
            'outbox_wait_for_due', 'outbox_claim', 'outbox_fill'
        )
    LOOP
        EXECUTE format('ALTER %s OWNER TO outbox_owner', object);
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, outbox_producer, outbox_relay, outbox_deleter, outbox_pruner, '
                       'outbox_operator, outbox_viewer', object);
        IF object LIKE 'FUNCTION %outbox_error_class%' THEN
            EXECUTE format('GRANT EXECUTE ON %s TO outbox_relay, outbox_operator, outbox_viewer', object);
        ELSIF object LIKE 'FUNCTION %outbox_wait_for_due%' OR object LIKE 'FUNCTION %outbox_claim%' THEN
            EXECUTE format('GRANT EXECUTE ON %s TO outbox_relay', object);
        ELSIF object LIKE 'FUNCTION %' THEN
            EXECUTE format('GRANT EXECUTE ON %s TO outbox_producer', object);
        END IF;
        -- Nobody but the owner takes back what was audited.
        IF object = 'TABLE outbox_audit' THEN
            GRANT SELECT, INSERT (actor, action, event_id, request_id, reason, before, after)
                ON outbox_audit TO outbox_operator;
        END IF;
    END LOOP;
END
$$;

-- Column by column: what a role has no grant for, it cannot name.
GRANT INSERT (id, event_type, topic, payload, carrier, event_key, headers, available_at)
    ON outbox_events TO outbox_producer;

GRANT SELECT ON outbox_events TO outbox_relay;
GRANT UPDATE (status, published_at, attempt_count, last_error, available_at) ON outbox_events TO outbox_relay;

GRANT SELECT (id, status), DELETE ON outbox_events TO outbox_deleter;

-- Pruning locks what it removes, and a lock takes the right to update some column. The policy below lets no update pass.
GRANT SELECT (id, status, published_at), UPDATE (published_at), DELETE ON outbox_events TO outbox_pruner;

GRANT SELECT, DELETE ON outbox_events TO outbox_operator;
GRANT UPDATE (status, attempt_count, last_error, available_at) ON outbox_events TO outbox_operator;

-- Neither the payload nor what may quote it.
GRANT SELECT (id, event_type, topic, status, created_at, published_at, attempt_count, available_at)
    ON outbox_events TO outbox_viewer;

-- The relay and the operator's commands look at the schema's version before they work.
GRANT SELECT ON outbox_migrations TO outbox_relay, outbox_operator, outbox_viewer;

-- Row by row: which states a role may touch. The owner, and a superuser, are not held to these.
ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS outbox_insert_new ON outbox_events;
CREATE POLICY outbox_insert_new ON outbox_events FOR INSERT TO outbox_producer
    WITH CHECK (status = 'PENDING' AND attempt_count = 0 AND published_at IS NULL AND last_error = '');

DROP POLICY IF EXISTS outbox_see ON outbox_events;
CREATE POLICY outbox_see ON outbox_events FOR SELECT
    TO outbox_relay, outbox_deleter, outbox_pruner, outbox_operator, outbox_viewer
    USING (true);

-- What is PUBLISHED or FAILED is no longer the relay's.
DROP POLICY IF EXISTS outbox_settle_pending ON outbox_events;
CREATE POLICY outbox_settle_pending ON outbox_events FOR UPDATE TO outbox_relay
    USING (status = 'PENDING') WITH CHECK (true);

DROP POLICY IF EXISTS outbox_delete_pending ON outbox_events;
CREATE POLICY outbox_delete_pending ON outbox_events FOR DELETE TO outbox_deleter
    USING (status = 'PENDING');

DROP POLICY IF EXISTS outbox_prune_lock ON outbox_events;
CREATE POLICY outbox_prune_lock ON outbox_events FOR UPDATE TO outbox_pruner
    USING (status = 'PUBLISHED') WITH CHECK (false);
DROP POLICY IF EXISTS outbox_prune_published ON outbox_events;
CREATE POLICY outbox_prune_published ON outbox_events FOR DELETE TO outbox_pruner
    USING (status = 'PUBLISHED');

DROP POLICY IF EXISTS outbox_requeue_failed ON outbox_events;
CREATE POLICY outbox_requeue_failed ON outbox_events FOR UPDATE TO outbox_operator
    USING (status = 'FAILED') WITH CHECK (status IN ('PENDING', 'FAILED'));
DROP POLICY IF EXISTS outbox_discard_failed ON outbox_events;
CREATE POLICY outbox_discard_failed ON outbox_events FOR DELETE TO outbox_operator
    USING (status = 'FAILED');

COMMIT;

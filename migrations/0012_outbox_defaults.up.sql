-- A table that the earlier system's auto-migration made has no default for created_at and last_error, and each start of its
-- player service takes such defaults away again, because its model has none. A producer that names neither could not write.
--
-- To name them in every INSERT is no way out: producers have no privilege for these columns, so that none can write an event
-- that counts as published (deployments/postgres/roles.sql).

ALTER TABLE outbox_events
    ALTER COLUMN carrier SET DEFAULT '{}',
    ALTER COLUMN status SET DEFAULT 'PENDING',
    ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN attempt_count SET DEFAULT 0,
    ALTER COLUMN last_error SET DEFAULT '';

CREATE OR REPLACE FUNCTION outbox_fill() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.carrier := coalesce(NEW.carrier, '{}');
    NEW.status := coalesce(NEW.status, 'PENDING');
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.attempt_count := coalesce(NEW.attempt_count, 0);
    NEW.last_error := coalesce(NEW.last_error, '');
    RETURN NEW;
END
$$;

-- As long as the defaults are there, an INSERT costs this one look at five columns.
DROP TRIGGER IF EXISTS outbox_fill ON outbox_events;
CREATE TRIGGER outbox_fill BEFORE INSERT ON outbox_events
    FOR EACH ROW
    WHEN (NEW.carrier IS NULL OR NEW.status IS NULL OR NEW.created_at IS NULL OR NEW.attempt_count IS NULL
          OR NEW.last_error IS NULL)
    EXECUTE FUNCTION outbox_fill();

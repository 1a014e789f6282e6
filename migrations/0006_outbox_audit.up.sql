-- What people did to dead letters, and what reading 100,000 of them needs. Additive: relays that do not know it work on.

-- One row for each event that a person changed, written in the same transaction as the change. No foreign key: it
-- outlives the event.
--
-- Of a discarded event `before` keeps what it was (topic, type, key, error, attempts) and its payload's size and
-- SHA-256, never the payload, the headers or the trace context: whatever personal data was in them is gone with the
-- event, and a copy that somebody holds can still be told to be the one that was discarded. A key that names a person
-- stays; erase it here as in the other tables that hold it.
CREATE TABLE IF NOT EXISTS outbox_audit (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         TIMESTAMPTZ NOT NULL DEFAULT now(),
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    event_id   UUID NOT NULL,
    request_id UUID NOT NULL,
    reason     TEXT NOT NULL DEFAULT '',
    before     JSONB NOT NULL,
    after      JSONB NULL
);

-- One request changes an event once, however often it is repeated.
CREATE UNIQUE INDEX IF NOT EXISTS idx_outbox_audit_request ON outbox_audit (request_id, event_id);
CREATE INDEX IF NOT EXISTS idx_outbox_audit_event ON outbox_audit (event_id);

-- Lists of dead letters are read in this order, page by page. Events of one transaction share their created_at, so
-- idx_outbox_failed alone would have each page sort all of them.
CREATE INDEX IF NOT EXISTS idx_outbox_dead_letters ON outbox_events (created_at, id) WHERE status = 'FAILED';

-- What errors of one cause have in common: quotations become "...", words with a digit become #. The library's
-- error_class() is the same function; a test compares them.
CREATE OR REPLACE FUNCTION outbox_error_class(error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT regexp_replace(
        regexp_replace(left(error, 1000), '"(?:[^"\\]|\\.)*(?:"|\\?$)', '"..."', 'g'),
        '[0-9A-Za-z]*[0-9][0-9A-Za-z]*', '#', 'g'
    )
$$;

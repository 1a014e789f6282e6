-- What people did to dead letters, one row for each event, written in the same transaction as the change. See the file
-- of the same number for PostgreSQL for what is kept of a discarded event, and why not its payload.
CREATE TABLE outbox_audit (
    id         INTEGER PRIMARY KEY,
    at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    actor      TEXT NOT NULL,
    action     TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    request_id TEXT NOT NULL,
    reason     TEXT NOT NULL DEFAULT '',
    -- JSON text.
    before     TEXT NOT NULL,
    after      TEXT
);

-- One request changes an event once, however often it is repeated.
CREATE UNIQUE INDEX idx_outbox_audit_request ON outbox_audit (request_id, event_id);

CREATE INDEX idx_outbox_audit_event ON outbox_audit (event_id);

-- Lists of dead letters are read in this order, page by page.
CREATE INDEX idx_outbox_dead_letters ON outbox_events (created_at, id) WHERE status = 'FAILED';

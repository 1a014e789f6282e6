-- The outbox: events that commit or roll back with the business rows they announce.
--
-- SQLite cannot alter a CHECK, so ck_outbox_status allows FAILED from the start; PostgreSQL allows it from 0004 on.
CREATE TABLE outbox_events (
    id            TEXT NOT NULL PRIMARY KEY,
    event_type    TEXT NOT NULL,
    topic         TEXT NOT NULL,
    -- JSON text, kept byte for byte.
    payload       TEXT NOT NULL,
    -- W3C trace headers of the request that inserted the row.
    carrier       TEXT NOT NULL DEFAULT '{}',
    status        TEXT NOT NULL DEFAULT 'PENDING',
    created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    published_at  TEXT,
    attempt_count INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED', 'FAILED')),
    -- The id is the event's identity on the wire and the consumers' deduplication key. One spelling each: a UUID with
    -- hyphens, in lower case, or two rows could carry the same id.
    CONSTRAINT ck_outbox_id CHECK (
        typeof(id) = 'text'
        AND id GLOB '????????-????-????-????-????????????'
        AND replace(id, '-', '') NOT GLOB '*[^0-9a-f]*'
        AND length(replace(id, '-', '')) = 32
    )
);

CREATE INDEX idx_outbox_pending ON outbox_events (created_at) WHERE status = 'PENDING';

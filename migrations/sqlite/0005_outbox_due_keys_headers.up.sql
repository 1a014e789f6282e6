-- When a row is due, what it is about, and its message headers. SQLite cannot add a column whose default is an
-- expression, so the table is rebuilt; rowids, which break ties between rows due at the same moment, are kept.
CREATE TABLE outbox_events_0005 (
    id            TEXT NOT NULL PRIMARY KEY,
    event_type    TEXT NOT NULL,
    topic         TEXT NOT NULL,
    payload       TEXT NOT NULL,
    carrier       TEXT NOT NULL DEFAULT '{}',
    status        TEXT NOT NULL DEFAULT 'PENDING',
    created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    published_at  TEXT,
    attempt_count INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT NOT NULL DEFAULT '',
    available_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    event_key     TEXT,
    headers       TEXT NOT NULL DEFAULT '{}',
    CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED', 'FAILED')),
    CONSTRAINT ck_outbox_id CHECK (
        typeof(id) = 'text'
        AND id GLOB '????????-????-????-????-????????????'
        AND replace(id, '-', '') NOT GLOB '*[^0-9a-f]*'
        AND length(replace(id, '-', '')) = 32
    ),
    -- Times are compared as text, so there is one spelling; a row with another would never become due.
    CONSTRAINT ck_outbox_available_at CHECK (available_at IS strftime('%Y-%m-%dT%H:%M:%fZ', available_at))
);

INSERT INTO outbox_events_0005 (
    rowid, id, event_type, topic, payload, carrier, status, created_at, published_at, attempt_count, last_error
)
SELECT
    rowid, id, event_type, topic, payload, carrier, status, created_at, published_at, attempt_count, last_error
FROM outbox_events;

-- Rows that wait already keep their place in the queue, unless nobody can tell when they came.
UPDATE outbox_events_0005
SET available_at = min(available_at, strftime('%Y-%m-%dT%H:%M:%fZ', created_at))
WHERE strftime('%Y-%m-%dT%H:%M:%fZ', created_at) IS NOT NULL;

DROP TABLE outbox_events;

ALTER TABLE outbox_events_0005 RENAME TO outbox_events;

CREATE INDEX idx_outbox_pending ON outbox_events (created_at) WHERE status = 'PENDING';

CREATE INDEX idx_outbox_failed ON outbox_events (created_at) WHERE status = 'FAILED';

CREATE INDEX idx_outbox_due ON outbox_events (available_at) WHERE status = 'PENDING';

CREATE INDEX idx_outbox_published ON outbox_events (published_at) WHERE status = 'PUBLISHED';

DROP INDEX idx_outbox_published;

DROP INDEX idx_outbox_due;

-- SQLite cannot drop a column that a CHECK of the table names.
CREATE TABLE outbox_events_0004 (
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
    CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED', 'FAILED')),
    CONSTRAINT ck_outbox_id CHECK (
        typeof(id) = 'text'
        AND id GLOB '????????-????-????-????-????????????'
        AND replace(id, '-', '') NOT GLOB '*[^0-9a-f]*'
        AND length(replace(id, '-', '')) = 32
    )
);

INSERT INTO outbox_events_0004 (
    rowid, id, event_type, topic, payload, carrier, status, created_at, published_at, attempt_count, last_error
)
SELECT
    rowid, id, event_type, topic, payload, carrier, status, created_at, published_at, attempt_count, last_error
FROM outbox_events;

DROP TABLE outbox_events;

ALTER TABLE outbox_events_0004 RENAME TO outbox_events;

CREATE INDEX idx_outbox_pending ON outbox_events (created_at) WHERE status = 'PENDING';

CREATE INDEX idx_outbox_failed ON outbox_events (created_at) WHERE status = 'FAILED';

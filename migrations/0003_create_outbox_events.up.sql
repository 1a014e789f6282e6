-- The outbox: events that commit or roll back with the business rows they announce.
--
-- Every statement is idempotent. Tables that an earlier relay's tool created exist without our bookkeeping, sometimes
-- only in part, and applying the migrations takes them over as they are.

CREATE TABLE IF NOT EXISTS outbox_events (
    -- The event's id on the wire and the consumer's deduplication key.
    id            UUID PRIMARY KEY,
    event_type    TEXT NOT NULL,
    topic         TEXT NOT NULL,
    payload       JSONB NOT NULL,
    -- W3C trace headers of the request that inserted the row.
    carrier       JSONB NOT NULL DEFAULT '{}',
    status        TEXT NOT NULL DEFAULT 'PENDING',
    created_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
    published_at  TIMESTAMPTZ NULL,
    attempt_count INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED'))
);

-- Partial: it holds the backlog, not the history.
CREATE INDEX IF NOT EXISTS idx_outbox_pending ON outbox_events (created_at) WHERE status = 'PENDING';

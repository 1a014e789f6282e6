-- A row that cannot be sent is set aside as FAILED, with the last error, where a person finds it.
ALTER TABLE outbox_events ADD COLUMN last_error TEXT NOT NULL DEFAULT '';

CREATE INDEX idx_outbox_failed ON outbox_events (created_at) WHERE status = 'FAILED';

-- Takes 0007 back: the index as 0005 made it.

DROP INDEX IF EXISTS idx_outbox_due;
CREATE INDEX IF NOT EXISTS idx_outbox_due ON outbox_events (available_at) WHERE status = 'PENDING';

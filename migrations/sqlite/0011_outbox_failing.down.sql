DROP INDEX idx_outbox_failing;

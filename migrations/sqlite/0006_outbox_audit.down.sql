DROP INDEX idx_outbox_dead_letters;

DROP TABLE outbox_audit;

-- Dead letters go back into the queue: the version before knows no other place for them.
UPDATE outbox_events SET status = 'PENDING' WHERE status = 'FAILED';

DROP INDEX idx_outbox_failed;

ALTER TABLE outbox_events DROP COLUMN last_error;

-- Takes 0004 back. Dead letters become PENDING again before the check is tightened: no committed event is lost.

-- A relay that sets a row aside between the two steps would make the second one fail.
LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE;

UPDATE outbox_events SET status = 'PENDING' WHERE status = 'FAILED';

DROP INDEX IF EXISTS idx_outbox_failed;
ALTER TABLE outbox_events DROP CONSTRAINT IF EXISTS ck_outbox_status;
ALTER TABLE outbox_events ADD CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED'));
ALTER TABLE outbox_events DROP COLUMN IF EXISTS last_error;

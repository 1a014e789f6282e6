-- Claims go on where the one before ended instead of walking over its rows again. Many events can be due at the very same
-- time (one transaction gives all of its events one now()), so a place in the queue is a time and an id.
--
-- An index of both columns that exists already is taken as it is: on a large table somebody has built it beforehand
-- without a lock, see docs/operations.md.

DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('idx_outbox_due') AND indnatts = 2 AND indisvalid
    ) THEN
        DROP INDEX IF EXISTS idx_outbox_due;
        CREATE INDEX idx_outbox_due ON outbox_events (available_at, id) WHERE status = 'PENDING';
    END IF;
END
$$;

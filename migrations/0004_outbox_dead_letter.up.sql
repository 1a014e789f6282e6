-- Dead letters: an event that can never be sent is set aside as FAILED with its last error, where a person finds it,
-- instead of being tried for ever. Idempotent for the same reason as 0003.

ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS last_error TEXT NOT NULL DEFAULT '';

-- Adding the check scans the whole table under an exclusive lock, so a table that allows FAILED already is left alone.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'outbox_events'::regclass
          AND conname = 'ck_outbox_status'
          AND pg_get_constraintdef(oid) LIKE '%FAILED%'
    ) THEN
        ALTER TABLE outbox_events DROP CONSTRAINT IF EXISTS ck_outbox_status;
        ALTER TABLE outbox_events
            ADD CONSTRAINT ck_outbox_status CHECK (status IN ('PENDING', 'PUBLISHED', 'FAILED'));
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS idx_outbox_failed ON outbox_events (created_at) WHERE status = 'FAILED';

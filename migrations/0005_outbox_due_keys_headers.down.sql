-- Takes 0005 back. Events stay; their keys, headers and waiting times go.

DROP FUNCTION IF EXISTS outbox_publish(text, text, jsonb, text, jsonb, jsonb, uuid, timestamptz);
ALTER TABLE outbox_events ALTER COLUMN id DROP DEFAULT;
DROP FUNCTION IF EXISTS outbox_uuid_v7();

DROP INDEX IF EXISTS idx_outbox_published;
DROP INDEX IF EXISTS idx_outbox_due;
ALTER TABLE outbox_events DROP COLUMN IF EXISTS headers;
ALTER TABLE outbox_events DROP COLUMN IF EXISTS event_key;
ALTER TABLE outbox_events DROP COLUMN IF EXISTS available_at;

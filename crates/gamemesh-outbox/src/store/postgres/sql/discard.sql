-- Deletes the letters that held.sql locks. Migration 0006 says what the audit keeps of them, and why.
-- $16: whether payloads are read for it. The server cannot make the text of every payload (see row_by_row.rs), and what
-- nobody can read has to be discarded as well.
WITH {held},
discarded AS (
    DELETE FROM outbox_events AS event
    USING held
    WHERE event.id = held.id
    RETURNING event.*
),
audited AS (
    INSERT INTO outbox_audit (actor, action, event_id, request_id, reason, before)
    SELECT $13::text, 'discard', discarded.id, $12::uuid, $14::text,
           jsonb_build_object(
               'status', status,
               'attempt_count', attempt_count,
               'last_error', last_error,
               'topic', topic,
               'event_type', event_type,
               'event_key', event_key,
               'created_at', created_at,
               'payload_bytes', octet_length(payload.bytes),
               'payload_sha256', encode(sha256(payload.bytes), 'hex')
           )
    FROM discarded
    CROSS JOIN LATERAL (
        SELECT CASE WHEN $16::boolean THEN convert_to(discarded.payload::text, 'UTF8') END AS bytes OFFSET 0
    ) AS payload
    RETURNING event_id
)
SELECT (SELECT created_at FROM next) AS next_created_at,
       (SELECT id FROM next) AS next_id,
       ARRAY(SELECT event_id FROM audited) AS changed

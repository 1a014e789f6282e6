-- Deletes letters, otherwise as requeue.sql, whose $16 is $15 here. Migration 0006 says what the audit keeps of them, and why.
-- $16: whether payloads are read for it. The server cannot make the text of every payload (see row_by_row.rs), and what
-- nobody can read has to be discarded as well.
WITH examined AS MATERIALIZED (
    SELECT event.id, event.created_at, event.topic, event.event_type, event.last_error
    FROM outbox_events AS event
    WHERE event.status = 'FAILED'
      AND ($1::uuid[] IS NULL OR event.id = ANY ($1::uuid[]))
      AND ($5::timestamptz IS NULL OR event.created_at >= $5::timestamptz)
      AND ($6::timestamptz IS NULL OR event.created_at < $6::timestamptz)
      AND ($7::timestamptz IS NULL OR (event.created_at, event.id) > ($7::timestamptz, $8::uuid))
      AND ($9::timestamptz IS NULL OR (event.created_at, event.id) <= ($9::timestamptz, $10::uuid))
    ORDER BY event.created_at, event.id
    LIMIT $15::bigint
),
meant AS MATERIALIZED (
    SELECT id, created_at
    FROM examined
    WHERE ($2::text IS NULL OR topic = $2::text)
      AND ($3::text IS NULL OR event_type = $3::text)
      AND ($4::text IS NULL OR outbox_error_class(last_error) = $4::text)
    ORDER BY created_at, id
    LIMIT $11::bigint
),
next AS (
    (SELECT created_at, id FROM meant ORDER BY created_at, id OFFSET $11::bigint - 1 LIMIT 1)
    UNION ALL
    (SELECT created_at, id FROM examined ORDER BY created_at, id OFFSET $15::bigint - 1 LIMIT 1)
    ORDER BY created_at, id
    LIMIT 1
),
held AS MATERIALIZED (
    SELECT event.id
    FROM meant
    JOIN outbox_events AS event ON event.id = meant.id
    WHERE event.status = 'FAILED'
      AND NOT EXISTS (
          SELECT FROM outbox_audit AS done WHERE done.request_id = $12::uuid AND done.event_id = event.id
      )
    ORDER BY meant.created_at, meant.id
    FOR UPDATE OF event
),
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

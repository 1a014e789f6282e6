-- Reads one claimed event as claim.sql does, with the same columns in the same order, and without its payload, carrier,
-- headers, or topic, type and key, where $3, $4, $5 or $6 say so. $2: most bytes of a payload.
SELECT event.ctid AS place,
       event.id,
       CASE WHEN $6::boolean THEN left(event.topic, 1024) END AS topic,
       CASE WHEN $6::boolean THEN left(event.event_type, 1024) END AS event_type,
       CASE WHEN octet_length(payload.text) <= $2::bigint THEN payload.text END AS payload,
       octet_length(payload.text)::bigint AS payload_bytes,
       CASE WHEN $4::boolean THEN left(event.carrier::text, 16385) END AS carrier,
       CASE WHEN $5::boolean THEN left(event.headers::text, 1048576) END AS headers,
       CASE WHEN $6::boolean THEN left(event.event_key, 4097) END AS event_key,
       event.created_at,
       event.attempt_count,
       event.available_at,
       false AS beyond
FROM outbox_events AS event
CROSS JOIN LATERAL (SELECT CASE WHEN $3::boolean THEN event.payload::text END AS text OFFSET 0) AS payload
WHERE event.id = $1::uuid

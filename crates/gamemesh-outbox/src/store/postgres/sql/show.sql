-- Reads one event, whatever its state, with at most $2 characters of its payload. The payload becomes text once; $3 says
-- whether it, the headers and the carrier are read at all.
SELECT event.id,
       coalesce(left(event.topic, 1024), '') AS topic,
       coalesce(left(event.event_type, 1024), '') AS event_type,
       left(event.event_key, 1024) AS event_key,
       coalesce(event.created_at, '-infinity') AS created_at,
       coalesce(event.attempt_count, 0) AS attempt_count,
       coalesce(left(event.last_error, 1024), '') AS last_error,
       event.available_at,
       event.status,
       event.published_at,
       coalesce(left(payload.text, $2::integer), '') AS payload,
       coalesce(octet_length(payload.text), 0)::bigint AS payload_bytes,
       coalesce(CASE WHEN $3::boolean THEN left(event.headers::text, 16384) END, '{}') AS headers,
       coalesce(CASE WHEN $3::boolean THEN left(event.carrier::text, 16384) END, '{}') AS carrier
FROM outbox_events AS event
CROSS JOIN LATERAL (SELECT CASE WHEN $3::boolean THEN event.payload::text END AS text OFFSET 0) AS payload
WHERE event.id = $1::uuid

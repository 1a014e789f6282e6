-- Claims the oldest due events from the place ($6, $7) in the queue on: up to $1 rows and $2 bytes of payloads, headers
-- and carriers, no payload above $3 bytes, and nothing of the routes in $4 (topics) and $5 (event types), which pair up
-- by position.
--
-- The row locks are the claim. SKIP LOCKED lets replicas take different rows without waiting for each other, and the
-- locks end with the transaction, however it ends.
--
-- Rows are written out after they are locked, once each (OFFSET 0 keeps the subquery apart), and streamed: no sort, no
-- copy of the batch. What lies `beyond` the budget comes without its payload; nothing happens to it, and it is free when
-- this transaction ends.
SELECT place,
       id,
       -- Longer than any bus takes: enough to be found invalid.
       left(topic, 1024) AS topic,
       left(event_type, 1024) AS event_type,
       CASE WHEN payload_bytes <= $3::bigint AND NOT beyond THEN payload_text END AS payload,
       payload_bytes,
       CASE WHEN NOT beyond THEN carrier_text END AS carrier,
       CASE WHEN NOT beyond THEN headers_text END AS headers,
       left(event_key, 4097) AS event_key,
       created_at,
       attempt_count,
       available_at,
       beyond
FROM (
    SELECT weighed.*,
           -- The first is claimed whatever its size, if wanted.
           coalesce(
               sum(weight) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + weight,
               CASE WHEN $8::boolean THEN 0 ELSE weight END
           ) > $2::bigint AS beyond
    FROM (
        SELECT written.*,
               coalesce(octet_length(payload_text), pg_column_size(payload))::bigint AS payload_bytes,
               (
                   least(coalesce(octet_length(payload_text), 0), $3::bigint)
                   + coalesce(octet_length(carrier_text), 0)
                   + coalesce(octet_length(headers_text), 0)
               )::integer AS weight
        FROM (
            -- What takes this much on disk, compressed, is far too large as text, and writing it out could take a
            -- gigabyte.
            SELECT due.*,
                   CASE WHEN pg_column_size(payload) <= 8 * $3::bigint THEN payload::text END AS payload_text,
                   -- Most have none, and text is dear.
                   CASE WHEN carrier <> '{}' THEN left(carrier::text, 16385) END AS carrier_text,
                   CASE WHEN headers <> '{}' THEN left(headers::text, 1048576) END AS headers_text
            FROM (
                SELECT event.ctid AS place, event.id, event.topic, event.event_type, event.payload, event.carrier,
                       event.headers, event.event_key, event.created_at, event.attempt_count, event.available_at
                FROM outbox_events AS event
                WHERE event.status = 'PENDING'
                  AND event.available_at <= now()
                  AND (event.available_at, event.id) >= ($6::timestamptz, $7::uuid)
                  -- NOT IN stays a filter on the index scan; NOT EXISTS may become a join that sorts the whole backlog first.
                  AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
                      SELECT paused.topic, paused.event_type
                      FROM unnest($4::text[], $5::text[]) AS paused (topic, event_type)
                  )
                ORDER BY event.available_at, event.id
                LIMIT $1::bigint
                FOR UPDATE OF event SKIP LOCKED
            ) AS due
            OFFSET 0
        ) AS written
    ) AS weighed
) AS placed

-- Claims the oldest due events: up to $1 rows and $2 bytes of payload, none of a payload above $3 bytes, and nothing of
-- the routes in $4 (topics) and $5 (event types), which pair up by position.
--
-- The row locks are the claim. SKIP LOCKED lets replicas take different rows without waiting for each other, and the
-- locks end with the transaction, however it ends.
--
-- Locked rows beyond the budget are not returned; nothing happens to them and they are free when this transaction ends.
-- `stored_before` keeps the server from writing out payloads that cannot fit: it sums what rows weigh on disk, which is
-- known without reading them. Each remaining payload becomes text once, and its size is taken from that text.
WITH due AS MATERIALIZED (
    SELECT event.*
    FROM outbox_events AS event
    WHERE event.status = 'PENDING'
      AND event.available_at <= now()
      -- NOT IN stays a filter on the index scan; NOT EXISTS may become a join that sorts the whole backlog first.
      AND (coalesce(event.topic, ''), coalesce(event.event_type, '')) NOT IN (
          SELECT paused.topic, paused.event_type FROM unnest($4::text[], $5::text[]) AS paused (topic, event_type)
      )
    ORDER BY event.available_at
    LIMIT $1::bigint
    FOR UPDATE OF event SKIP LOCKED
),
placed AS (
    SELECT due.*,
           row_number() OVER claim_order AS place,
           coalesce(sum(pg_column_size(payload)) OVER (
               claim_order ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
           ), 0) AS stored_before
    FROM due
    WINDOW claim_order AS (ORDER BY available_at, id)
),
written AS MATERIALIZED (
    SELECT placed.*, payload::text AS payload_text
    FROM placed
    WHERE stored_before <= $2::bigint
),
weighed AS (
    SELECT written.*,
           octet_length(payload_text)::bigint AS payload_bytes,
           -- least() passes over a NULL; a payload that is none weighs nothing.
           sum(least(coalesce(octet_length(payload_text), 0), $3::bigint)) OVER (ORDER BY place) AS bytes_so_far
    FROM written
)
SELECT id,
       -- Longer than any bus takes: enough to be found invalid.
       left(topic, 1024) AS topic,
       left(event_type, 1024) AS event_type,
       CASE WHEN payload_bytes <= $3::bigint THEN payload_text END AS payload,
       payload_bytes,
       left(carrier::text, 16385) AS carrier,
       left(headers::text, 1048576) AS headers,
       event_key,
       created_at,
       attempt_count,
       -- More than what is returned means that the bytes were the limit.
       (SELECT count(*) FROM due) AS locked
FROM weighed
WHERE place = 1 OR bytes_so_far <= $2::bigint
ORDER BY place

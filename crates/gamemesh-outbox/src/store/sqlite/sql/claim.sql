-- The oldest due rows, up to a number of rows (?3) and of payload bytes (?5); the first row whatever its size,
-- if wanted (?9).
--
-- A claim only reads, so it never stands in a producer's way. The rows that this process works on, or leaves alone for now
-- (?1, a JSON array of ids), are left out by name; other processes are kept out by the lock beside the database.
--
-- octet_length reads a row's header, not its payload: a payload above ?4 bytes is never loaded. The other columns hold
-- what anyone inserted, so they are bounded too and come as bytes, which is what they are until they have been checked.
WITH due AS (
    SELECT rowid AS number, available_at AS due_at, octet_length(payload) AS payload_bytes
    FROM outbox_events
    WHERE status = 'PENDING'
      AND available_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
      AND id NOT IN (SELECT value FROM json_each(?1))
      AND (topic, event_type) NOT IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))
    ORDER BY available_at, rowid
    LIMIT ?3
),
counted AS (
    SELECT
        number, due_at, payload_bytes,
        sum(min(payload_bytes, ?4)) OVER (ORDER BY due_at, number) AS bytes_so_far,
        row_number() OVER (ORDER BY due_at, number) AS place
    FROM due
)
SELECT
    CAST(id AS BLOB) AS id,
    -- One character more than a valid name can have, so that a longer one is seen to be too long.
    CAST(substr(topic, 1, 256) AS BLOB) AS topic,
    CAST(substr(event_type, 1, 256) AS BLOB) AS event_type,
    payload_bytes,
    CASE WHEN payload_bytes <= ?4 THEN CAST(payload AS BLOB) END AS payload,
    CASE WHEN octet_length(carrier) <= ?6 THEN CAST(carrier AS BLOB) END AS carrier,
    CASE WHEN octet_length(headers) <= ?7 THEN CAST(headers AS BLOB) END AS headers,
    event_key IS NOT NULL AS has_key,
    CASE WHEN octet_length(event_key) <= ?8 THEN CAST(event_key AS BLOB) END AS event_key,
    CAST(substr(created_at, 1, 64) AS BLOB) AS created_at,
    CAST(due_at AS BLOB) AS due_at,
    CAST(attempt_count AS INTEGER) AS attempt_count,
    -- More than what is returned means that the bytes were the limit.
    (SELECT count(*) FROM due) AS found
FROM counted
JOIN outbox_events ON outbox_events.rowid = counted.number
WHERE bytes_so_far <= ?5 OR (place = 1 AND ?9)
ORDER BY place

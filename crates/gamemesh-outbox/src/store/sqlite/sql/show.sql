-- One event, whatever its state, with the first ?2 characters of its payload.
SELECT
    CAST(id AS BLOB) AS id,
    CAST(substr(topic, 1, 256) AS BLOB) AS topic,
    CAST(substr(event_type, 1, 256) AS BLOB) AS event_type,
    CAST(substr(event_key, 1, 1024) AS BLOB) AS event_key,
    CAST(substr(created_at, 1, 64) AS BLOB) AS created_at,
    CAST(available_at AS BLOB) AS available_at,
    CAST(attempt_count AS INTEGER) AS attempt_count,
    CAST(substr(last_error, 1, 1024) AS BLOB) AS last_error,
    status,
    CAST(published_at AS BLOB) AS published_at,
    CAST(substr(payload, 1, ?2) AS BLOB) AS payload,
    octet_length(payload) AS payload_bytes,
    CAST(substr(headers, 1, 16384) AS BLOB) AS headers,
    CAST(substr(carrier, 1, 16384) AS BLOB) AS carrier
FROM outbox_events
WHERE id = ?1

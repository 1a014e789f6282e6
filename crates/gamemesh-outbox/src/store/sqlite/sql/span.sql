-- The next ?11 of the letters that ?1 to ?6 mean, oldest first, after (?7, ?8) and up to (?9, ?10), with what the audit keeps
-- of them. One that request ?12 has changed before is left alone. ?13: see dead_letter_count.sql. The write lock is held
-- already, so nothing changes before the change. Both ends have a value, least or greatest, so that idx_outbox_dead_letters is
-- entered at the right place: what lies before was looked at already.
SELECT
    CAST(id AS BLOB) AS id,
    CAST(created_at AS BLOB) AS created_at,
    CAST(topic AS BLOB) AS topic,
    CAST(event_type AS BLOB) AS event_type,
    CAST(event_key AS BLOB) AS event_key,
    CAST(attempt_count AS INTEGER) AS attempt_count,
    CAST(last_error AS BLOB) AS last_error,
    ?13 > 0 AND available_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?13)) AS is_recent,
    EXISTS (SELECT 1 FROM outbox_audit WHERE request_id = ?12 AND event_id = outbox_events.id) AS is_done
FROM outbox_events
WHERE status = 'FAILED'
  AND {is_meant}
  AND (created_at, id) > (coalesce(?7, ''), coalesce(?8, ''))
  AND (created_at, id) <= (coalesce(?9, x'ff'), coalesce(?10, x'ff'))
ORDER BY created_at, id
LIMIT ?11
